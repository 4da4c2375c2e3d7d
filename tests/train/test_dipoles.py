"""Dipoles of structures as labels: units, charges, branches, training and errors."""

import tomllib
import warnings
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms

from ase_mlelec import DeepWannierCalculator, units
from ase_mlelec.data.frames import Frame, Frames, read_frames, write_hdf5
from ase_mlelec.data.keys import factor_of
from ase_mlelec.survey.dipoles import formal_charges
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.dipoles import on_branch_of_model, settle_branches, with_sums
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.recipe import train
from ase_mlelec_entry_points.cli.main import main

KNOWN = {"valence_charges": {"O": 6.0, "H": 1.0}, "electrons_per_centre": {"O": 8.0}}
LENGTH, SHARE = 7.4, 0.12  # Å; displacement of a centroid in units of the sum of the two bonds


def water(n, seed=0):
    """Cells of eight molecules and the true sums of the displacements of their centroids, a share of the bonds."""
    rng = np.random.default_rng(seed)
    frames, sums = [], []
    places = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3) * LENGTH
    for k in range(n):
        axes = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in places]
        bonds = np.array([[[0.76, 0.59, 0], [-0.76, 0.59, 0]] @ turn for turn in axes]) * rng.uniform(
            0.95, 1.05, (8, 2, 1)
        )
        oxygens = places + rng.normal(0, 0.1, places.shape)
        positions = np.concatenate([np.concatenate([o[None], o + b]) for o, b in zip(oxygens, bonds)])
        atoms = Atoms("OH2" * 8, positions, cell=[LENGTH] * 3, pbc=True)
        sums.append(SHARE * bonds.sum(axis=(0, 1)))
        charges = np.where(atoms.numbers == 8, -2.0, 1.0)
        dipole = charges @ positions - 8 * sums[-1]
        frames.append(Frame(atoms, {"dipole": dipole}, f"cell {k}", group="train" if k < n - 4 else "test"))
    return Frames(frames), np.array(sums)


def on_other_branches(frames, seed=1):
    """The same frames with dipoles that electrons moved by lattice vectors would have, and atoms in other images."""
    rng = np.random.default_rng(seed)
    changed = []
    for frame in frames:
        quanta = rng.integers(-3, 4, 3) * LENGTH
        changed.append(replace(frame, labels={"dipole": frame.labels["dipole"] + quanta}))
    return replace(frames, frames=changed)


def sums_of(frames):
    return np.array([frame.labels["summed_dipole"] for frame in frames])


def test_sums_follow_from_dipoles():
    frames, sums = water(3)
    np.testing.assert_allclose(sums_of(with_sums(frames, KNOWN)), sums, atol=1e-12)
    fourfold = with_sums(frames, KNOWN | {"functions_per_vector": 4})
    np.testing.assert_allclose(sums_of(fourfold), 4 * sums, atol=1e-12)
    assert with_sums(fourfold, KNOWN)[0] is fourfold[0]


def test_dipoles_of_charged_structures_are_told():
    """Once, with the charge; they refer to the origin of the positions."""
    frames, _ = water(3)
    known = KNOWN | {"electrons_per_centre": {"O": 9}}
    with pytest.warns(
        UserWarning, match="3 of 3 structures with a dipole are charged, such as 'cell 0' with -8 e"
    ) as found:
        with_sums(frames, known)
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_sums(frames, KNOWN)


def test_branches_fit_each_other():
    """Found again where every label is on another branch, though true dipoles are longer than half a quantum."""
    frames, sums = water(60)
    assert np.abs(8 * sums).max() > 0.5 * LENGTH
    np.testing.assert_allclose(sums_of(settle_branches(on_other_branches(frames), KNOWN, ["O"])), sums, atol=1e-9)
    np.testing.assert_allclose(sums_of(settle_branches(frames, KNOWN, ["O"])), sums, atol=1e-9)


def test_few_structures_take_the_branch_nearest_to_zero():
    frames, _ = water(3)
    found = sums_of(settle_branches(on_other_branches(frames), KNOWN, ["O"]))
    assert np.abs(8 * found).max() <= 0.5 * LENGTH + 1e-9


def test_molecules_have_one_branch():
    frames, sums = water(3)
    for frame in frames:
        frame.atoms.pbc = False
    np.testing.assert_allclose(sums_of(settle_branches(frames, KNOWN, ["O"])), sums, atol=1e-12)


def configuration(folder, data, text=""):
    table = f'[data]\nfiles = ["{data}"]\nvalidation_fraction = 0.2\n[output]\nmodel = "m.safetensors"\n{text}'
    return parse_config(tomllib.loads(table), folder)


def test_training_on_dipoles_alone(tmp_path):
    """From an extxyz file in atomic units, with every label on another branch."""
    frames, sums = water(64)
    images = []
    for frame in on_other_branches(frames):
        images.append(frame.atoms.copy())
        images[-1].info |= {"REF_mu": frame.labels["dipole"] / units.BOHR, "group": frame.group}
    ase.io.write(tmp_path / "water.extxyz", images)
    text = (
        '[data.keys]\ndipole = "REF_mu"\ndipole_unit = "e bohr"\n[dipole]\nions = {O = 6, H = 1}\nelectrons = {O = 8}\n'
    )
    text += "[descriptor]\ncutoff = 2.4\nsmooth = 0.8\n"  # molecules alone
    model = train(configuration(tmp_path, "water.extxyz", text), progress=False)
    assert model.metadata["valence_charges"] == KNOWN["valence_charges"]
    keys = {"dipole": "REF_mu", "dipole_unit": "e bohr"}
    test = read_frames(tmp_path / "water.extxyz", keys=keys).select("test")
    spread = np.std(8 * sums)
    assert errors(model, test)["dipole_rmse_e_A"] < 0.1 * spread
    assert model.metadata["errors"]["test"]["dipole_rmse_e_A"] < 0.1 * spread
    calculator = DeepWannierCalculator(model)
    atoms = frames[-1].atoms
    assert calculator.get_property("dipole", atoms) == pytest.approx(frames[-1].labels["dipole"], abs=0.3 * spread)
    found = sums_of(on_branch_of_model(model, test))
    np.testing.assert_allclose(found, sums[-4:], atol=1e-6)  # eight digits of the file


def test_charges_are_needed(tmp_path):
    write_hdf5(tmp_path / "data.h5", water(8)[0])
    with pytest.raises(ValueError, match=r"give dipole.ions and dipole.electrons, such as ions = \{O = 6, H = 1\}"):
        train(configuration(tmp_path, "data.h5", '[dipole]\ncenters = ["O"]\n'), progress=False)
    different = "[dipole]\nions = {O = 6, H = 1}\nelectrons = {O = 6, H = 1}\n"
    with pytest.raises(ValueError, match="cannot be learned with different electrons at the centers"):
        train(configuration(tmp_path, "data.h5", different), progress=False)
    with pytest.raises(ValueError, match="there is no charge of H; add it to dipole.ions"):
        train(configuration(tmp_path, "data.h5", "[dipole]\nions = {O = 6}\nelectrons = {O = 6}\n"), progress=False)


@pytest.mark.parametrize(
    "setting, text, factor",
    [
        ("dipole_unit", "e A", 1.0),
        ("dipole_unit", "debye", 0.20819433),
        ("polarizability_unit", "2.5 bohr^3", 2.5 * 0.14818471),
        ("polarizability_unit", " 1e-2 A^3 ", 0.01),
    ],
)
def test_units(setting, text, factor):
    assert factor_of(setting, text) == pytest.approx(factor, rel=1e-7)


@pytest.mark.parametrize("text", ["bohr", "", "2,5 e A", "0 e A", "nan e A", "e bohr extra"])
def test_foreign_units(text):
    with pytest.raises(ValueError, match="got dipole_unit = .*, need one of e A, e bohr, debye"):
        factor_of("dipole_unit", text)


def test_configuration_of_dipoles_alone(tmp_path):
    """``mlelec init`` takes the outer electrons as charges, where these can be told."""
    frames, _ = water(20)
    images = [frame.atoms.copy() for frame in frames]
    for image, frame in zip(images, frames):
        image.info["dipole"] = frame.labels["dipole"]
    ase.io.write(tmp_path / "water.extxyz", images)
    assert not main(["init", str(tmp_path / "water.extxyz"), "-o", str(tmp_path / "water.toml")])
    table = tomllib.loads((tmp_path / "water.toml").read_text())
    assert table["dipole"] == {"ions": {"H": 1, "O": 6}, "electrons": {"O": 8}}


@pytest.mark.parametrize(
    "formulas, charges",
    [
        (["H2O", "H4O2"], ({"H": 1, "O": 6}, {"O": 8})),
        (["CH4"], ({"C": 4, "H": 1}, {"C": 8})),
        (["H2O", "H2O2"], None),  # ions or radicals: no equal share
        (["MgO"], None),
        (["FeH2"], None),
        (["H2"], None),
    ],
)
def test_formal_charges(formulas, charges):
    assert formal_charges(map(Atoms, formulas)) == charges
