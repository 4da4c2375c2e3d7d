"""Training with a long range: order of the stages, what the energy learns, model files, settings that do not fit."""

import tomllib

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from small_models import WANNIER, random_model

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.frames import Frames, from_images, write_hdf5
from ase_mlelec.edges import Edges
from ase_mlelec.long_range import LongRange
from ase_mlelec.model_file.upgrade import UPGRADES
from ase_mlelec.system import System
from ase_mlelec.train.config import Config, parse_config
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.recipe import train

SALT = LongRange(0.9, {"Na": 1.0, "Cl": -1.0})


def salt(n, seed=0, length=6.4):
    """Molten pairs of ions whose only energy is that of their charges."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        grid = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3) * length
        atoms = Atoms("NaClClNaClNaNaCl", grid + rng.normal(0, 0.35, (8, 3)), cell=[length] * 3, pbc=True)
        model = random_model(species=("Na", "Cl"))
        terms = SALT.terms(model, System.from_atoms(atoms), Edges.build(System.from_atoms(atoms), 4.0))
        atoms.calc = SinglePointCalculator(
            atoms, energy=float(terms.energies.sum()) - 20.0, forces=terms.forces.numpy()
        )
        images.append(atoms)
    return images


def configuration(folder, text, data="data.h5"):
    table = tomllib.loads(f'[data]\nfiles = ["{data}"]\n[output]\nmodel = "model.safetensors"\n{text}')
    return parse_config(table, folder=folder)


ENERGY = "[descriptor]\ncutoff = 3.0\n[energy]\nwidths = [4]\nsteps = 3\n"


def test_rigid_ions(tmp_path):
    """With their charges nothing is left for the net, whose forces are then as small as its weights."""
    write_hdf5(tmp_path / "data.h5", from_images(salt(6)))
    charges = "[long_range]\nwidth = 0.9\ncharges = {Na = 1, Cl = -1}\n"
    found = {}
    for name, text in ("without", ENERGY), ("with", ENERGY + charges):
        model = train(configuration(tmp_path, text), progress=False)
        found[name] = errors(model, from_images(salt(2, seed=5)))["forces_mae_meV_per_A"]
    assert found["with"] < 0.02 * found["without"]
    again = load_model(tmp_path / "model.safetensors")
    assert again.long_range == SALT and model.long_range == SALT
    assert again.metadata["errors"]["validation"]["forces_mae_meV_per_A"] < 0.1 * found["without"]
    single = salt(1, seed=7)[0]
    wanted = single.get_forces()
    single.calc = DeepPotCalculator(again)
    assert np.abs(single.get_forces() - wanted).max() < 0.1 * np.abs(wanted).max()


def molecules(n):
    """Structures with labels of a random model with a long range of its own."""
    teacher = random_model(3, ("energy", "dipole"), metadata=dict(WANNIER))
    teacher.long_range = LongRange(1.1, WANNIER["valence_charges"], WANNIER["electrons_per_centre"])
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(n):
        atoms = Atoms("SiO2" * 3, rng.uniform(0, 1, (9, 3)), cell=[6.0] * 3, pbc=True)
        points = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
        atoms.positions = 2.0 * rng.permutation(points)[:9] + rng.normal(0, 0.1, (9, 3))
        calc = DeepPotCalculator(teacher)
        system = System.from_atoms(atoms)
        vectors = teacher(system, Edges.build(system, 4.0), ("dipole",))["dipole"].detach().numpy()
        atoms.calc = SinglePointCalculator(
            atoms, energy=calc.get_potential_energy(atoms), forces=calc.get_forces(atoms), stress=calc.get_stress(atoms)
        )
        atoms.arrays["atomic_dipole"] = vectors
        frames.append(atoms)
    made = from_images(frames)
    return Frames(made.frames, None, dict(WANNIER))


LINEAR = "[power_spectrum]\ncutoff = 3.5\nn_pair = 3\nn_radial = 2\nl_max = 2\nnear = 0\n[energy]\nwidths = []\n"


@pytest.mark.parametrize("energy", ["[energy]\nwidths = [4]\nsteps = 3\n", LINEAR])
def test_centroids_come_first(tmp_path, energy):
    """The energy is trained on what the centroids of the model leave, so that both together reproduce the labels."""
    frames = molecules(12)
    write_hdf5(tmp_path / "data.h5", frames)
    model = train(configuration(tmp_path, f"{energy}[dipole]\ndrawn = 16\n[long_range]\n"), progress=False)
    assert model.long_range == LongRange(1.25, WANNIER["valence_charges"], WANNIER["electrons_per_centre"])
    assert set(model.heads) == {"energy", "dipole"} and model.electronic is not None
    # the same as the errors of the short range on labels from which the long range of the model is taken
    atoms = frames[0].atoms.copy()
    system = System.from_atoms(atoms)
    far = model.long_range.terms(model, system, Edges.build(system, model.reach))
    with torch.no_grad():
        near = model(system, Edges.build(system, model.reach), ("energy",))["energy"].sum()
    atoms.calc = DeepPotCalculator(load_model(tmp_path / "model.safetensors"))
    assert atoms.get_potential_energy() == pytest.approx(float(near + far.energies.sum()), rel=1e-10)
    stated = model.metadata["errors"]["validation"]["energy_mae_meV_per_atom"]
    held = errors(model, frames.take(range(12)))["energy_mae_meV_per_atom"]
    assert stated > 0 and held > 0


def test_former_files_have_no_long_range():
    header, state = UPGRADES[7]({"heads": {}}, {})
    assert header == {"long_range": None, "heads": {}, "format_version": 8} and state == {}


@pytest.mark.parametrize(
    "text, message",
    [
        ("[dipole]\n[long_range]\n", r"got \[long_range\] without \[energy\]"),
        ("[energy]\n[long_range]\n", r"got \[long_range\] without \[dipole\], whose centroids it needs"),
        ("[energy]\n[dipole]\n[long_range]\nwidth = 0.0\n", "width"),
        ("[energy]\n[long_range]\ncharges = {Xy = 1}\n", "got 'Xy', need a chemical symbol"),
        ("[energy]\n[long_range]\ncharges = {Na = 1e3}\n", "got 1000, need at least -100 and at most 100"),
        ("[energy]\n[long_range]\ndielectric = 0.5\n", "dielectric"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        configuration(tmp_path, text)


def test_data_without_charges(tmp_path):
    frames = molecules(3)
    write_hdf5(tmp_path / "data.h5", Frames(frames.frames))
    with pytest.raises(ValueError, match="needs the charges of ions .* give dipole.ions and dipole.electrons"):
        train(configuration(tmp_path, "[energy]\n[dipole]\n[long_range]\n"), progress=False)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"width": -1.0, "ions": {"Na": 1.0}}, "got a width of -1 Å"),
        ({"width": 1.0, "ions": {"Na": "x"}}, "got 'x', need a number"),
        ({"width": 1.0, "ions": {"Na": 1.0}, "dielectric": 0.5}, "a dielectric constant of 0.5"),
        ({"width": 1.0, "ions": {"Na": 1.0}, "electrons": {"Cl": 8.0}}, "got electrons of Cl, which has no ion"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LongRange(**arguments)


def test_models_that_it_does_not_fit():
    with pytest.raises(ValueError, match="there is no charge of Si"):
        SALT.check(["Si"], [])
    with pytest.raises(ValueError, match="got electrons for a model without 'dipole'"):
        LongRange(1.0, {"O": 6.0}, {"O": 8.0}).check(["O"], ["energy"])


def test_configuration_of_other_sections():
    assert Config.model_fields["long_range"].default is None
