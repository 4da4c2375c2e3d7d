"""Local frames of DPMD against loops over atoms and neighbors, a net by hand, and their jumps where they have to be."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import InputError
from small_data import make_frames
from small_models import randomize_nets, seeded

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.descriptors import DeepPotLocalFrame
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms
from ase_mlelec.testing.structures import five_point, random_rotation, turned
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.recipe import train

CUTOFF = 3.4
SPECIES = ["Si", "O"]
CRYSTAL = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5], seed=25)  # no two distances that matter within 0.04 Å


def features_by_loops(atoms, cutoff, sel, full, axes=None):
    """Eqs. (2.9)-(2.16) of Rottenberg 2023 one atom after the other, in NumPy."""
    images = list(itertools.product(*(range(-2, 3) if periodic else (0,) for periodic in atoms.pbc)))
    rows = []
    for i, own in enumerate(atoms.symbols):
        found = []
        for j, image in itertools.product(range(len(atoms)), images):
            apart = atoms.positions[j] + np.array(image) @ atoms.cell.array - atoms.positions[i]
            distance = np.linalg.norm(apart)
            if 0 < distance < cutoff:
                found.append((distance, atoms.symbols[j], apart))
        found.sort(key=lambda entry: entry[0])
        wanted = (axes or {}).get(own, (None, None))
        e1 = next((vector / r for r, symbol, vector in found if wanted[0] in (None, symbol)), None)
        e2 = None
        for r, symbol, vector in found:
            across = vector - (vector @ e1) * e1
            if wanted[1] in (None, symbol) and np.linalg.norm(across) / r > 0.1:
                e2 = across / np.linalg.norm(across)
                break
        rotation = np.column_stack([e1, e2, np.cross(e1, e2)]) if e2 is not None else None
        row = []
        for symbol, places, whole in zip(SPECIES, sel, full):
            near = [(r, vector) for r, other, vector in found if other == symbol]
            for place in range(places):
                entries = [0.0] * (4 if place < whole else 1)
                if place < len(near):
                    r, vector = near[place]
                    entries[0] = 1 / r
                    if place < whole:
                        entries[1:] = list(vector @ rotation / r) if e2 is not None else [vector @ e1 / r, 0.0, 0.0]
                row += entries
        rows.append(row)
    return np.array(rows)


def features_of(atoms, descriptor):
    system = System.from_atoms(atoms)
    with torch.no_grad():
        return descriptor(system, Edges.build(system, descriptor.cutoff)).features.numpy()


@pytest.mark.parametrize("axes", [None, {"Si": ("O", "Si"), "O": ("Si", "Si")}], ids=["nearest", "species"])
@pytest.mark.parametrize("seed", range(3))
def test_formulas(seed, axes):
    sel, full = (12, 9), (5, 2)
    descriptor = DeepPotLocalFrame(SPECIES, CUTOFF, sel, full, axes).double()
    structures = [CRYSTAL, random_atoms("Si3O3", cell=[[0, 5.5, 0.7], [5.1, 0.3, 0], [0.4, 0, 6.1]], seed=seed)]
    structures += [random_atoms("Si3O3", seed=seed)] if axes is None else []
    for atoms in structures:
        try:
            found = features_of(atoms, descriptor)
        except InputError as error:  # an atom without a neighbor of these species
            assert axes and atoms is not CRYSTAL and "axis" in str(error)
            continue
        assert found.shape == (len(atoms), sum(sel) + 3 * sum(full))
        np.testing.assert_allclose(found, features_by_loops(atoms, CUTOFF, sel, full, axes), atol=1e-12)


def test_few_neighbors():
    """None, one, and several in line: what no neighbor defines is zero."""
    descriptor = DeepPotLocalFrame(SPECIES, CUTOFF, (3, 3)).double()
    assert not features_of(Atoms("Si", [[1, 2, 3]]), descriptor).any()
    pair = features_of(Atoms("SiO", [[0, 0, 0], [0, 1.5, 2.0]]), descriptor)
    np.testing.assert_allclose(pair[:, pair.any(axis=0)], [[0, 0, 0.4, 1], [0.4, 1, 0, 0]], atol=1e-12)
    line = Atoms("OSiO", [[0, 0, -1.6], [0, 0.05, 0], [0, 0, 1.7]])  # bent by less than the smallest angle
    center = features_of(line, descriptor)[1]
    near, far = 1 / np.hypot(1.6, 0.05), 1 / np.hypot(1.7, 0.05)
    cosine = (0.05**2 - 1.6 * 1.7) * near * far
    np.testing.assert_allclose(center[12:20], [near, 1, 0, 0, far, cosine, 0, 0], atol=1e-12)


def test_axes_in_line_are_passed_over():
    """The second nearest neighbor is opposite of the nearest: the third one defines the plane."""
    atoms = Atoms("SiO3", [[0, 0, 0], [0, 0, 1.6], [0.1, 0, -1.7], [0, 1.8, 0.5]])
    descriptor = DeepPotLocalFrame(SPECIES, CUTOFF, (3, 3)).double()
    system = System.from_atoms(atoms)
    edges = Edges.build(system, CUTOFF)
    places = descriptor.places(system, edges)
    assert [int(edges.neighbor[k]) for k in (places.first[0], places.second[0])] == [1, 3]
    found = features_of(atoms, descriptor)[0, 12:24].reshape(3, 4)
    unit = np.array([0.1, 0, -1.7]) / np.hypot(0.1, 1.7)
    np.testing.assert_allclose(found[1, 1:], [unit[2], 0, -unit[0]], atol=1e-12)  # axes z, y and z x y = -x
    assert found[2, 2] > 0 and found[2, 3] == pytest.approx(0, abs=1e-12)


def test_mirror_image_differs():
    """Frames are right-handed: only the sign of z tells a structure from its mirror image."""
    descriptor = DeepPotLocalFrame(SPECIES, CUTOFF, (12, 9)).double()
    mirrored = CRYSTAL.copy()
    mirrored.set_cell(CRYSTAL.cell.array * [1, 1, -1])
    mirrored.positions *= [1, 1, -1]
    one, other = (features_of(atoms, descriptor).reshape(7, -1, 4) for atoms in (CRYSTAL, mirrored))
    np.testing.assert_allclose(other, one * [1, 1, 1, -1], atol=1e-12)
    assert np.abs(other - one).max() > 0.1


def test_perfect_diamond():
    """Any two of the four nearest neighbors give the same frame up to a rotation: the crystal has one energy."""
    descriptor = DeepPotLocalFrame(["Si"], 4.6, [28]).double()
    crystal = bulk("Si", a=5.43, cubic=True)
    wanted = features_of(crystal, descriptor)
    np.testing.assert_allclose(wanted, np.tile(wanted[:1], (8, 1)), atol=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(5):
        other = turned(crystal, random_rotation(int(rng.integers(100))))[rng.permutation(8)]
        np.testing.assert_allclose(features_of(other, descriptor), wanted, atol=1e-9)


def random_model(sel=(12, 9), full=(5, 2)):
    """Model of local frames with random nets and the statistics of CRYSTAL."""
    descriptor = DeepPotLocalFrame(SPECIES, CUTOFF, sel, full).double()
    system = System.from_atoms(CRYSTAL)
    with torch.no_grad():
        seen = descriptor(system, Edges.build(system, CUTOFF))
    with seeded(3):
        head = ScalarHead(2, descriptor.n_features, (7, 5)).double()
        randomize_nets(head.nets, -3.0, 0.5, seen.features, seen.species)
    return Model(descriptor, {"energy": head}).eval()


def test_energy_of_a_net_by_hand():
    """Eqs. (2.7), (2.18) and (2.19) in NumPy, from the features of the loops."""
    model = random_model()
    nets = model.heads["energy"].nets
    features = features_by_loops(CRYSTAL, CUTOFF, (12, 9), (5, 2))
    energies = []
    for symbol, x in zip(CRYSTAL.symbols, features):
        k = SPECIES.index(symbol)
        x = (x - nets.shift[k].numpy()) * nets.inverse[k].numpy()
        for layer in nets.hidden[k]:
            x = np.tanh(x @ layer.weight.detach().numpy() + layer.bias.detach().numpy())
        value = float(nets.last[k].weight.detach().numpy()[0] @ x + nets.last[k].bias.detach().numpy()[0])
        energies.append(float(nets.bias[k]) + float(nets.scale) * value)
    atoms = CRYSTAL.copy()
    atoms.calc = DeepPotCalculator(model, device="cpu", on_extrapolation="ignore")
    np.testing.assert_allclose(atoms.get_potential_energies(), energies, atol=1e-12)
    assert atoms.get_potential_energy() == pytest.approx(sum(energies), abs=1e-11)


def test_forces_and_stress():
    """Against differences, which keep away from the jumps."""
    atoms = CRYSTAL.copy()
    atoms.calc = DeepPotCalculator(random_model(), device="cpu", on_extrapolation="ignore")
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    assert np.abs(forces).max() > 0.1 and np.abs(stress).max() > 1e-3

    def energy(move, strain):
        moved = atoms.copy()
        moved.positions += move
        moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return atoms.calc.get_potential_energy(moved)

    for i, axis in itertools.product(range(len(atoms)), range(3)):
        move = np.zeros((len(atoms), 3))
        move[i, axis] = 1.0
        assert -five_point(lambda t, m=move: energy(t * m, 0)) == pytest.approx(forces[i, axis], abs=1e-7)
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = 0.5 if i != j else 1.0
        slope = five_point(lambda t, s=strain: energy(0, t * s)) / atoms.get_volume()
        assert slope == pytest.approx(stress[i, j], abs=1e-8)


def exchange(d):
    """An atom whose two nearest neighbors exchange their places at d = 0."""
    return Atoms("SiO4", [[0, 0, 0], [0, 0, 1.6 + d], [0, 1.6, 0], [1.9, 0.3, 0.4], [-1.2, -1.8, -0.7]])


@pytest.mark.parametrize(
    "change",
    [
        exchange,
        lambda d: Atoms("SiO4", [[0, 0, 0], [0, 0, 1.5], [0, 1.6, 0], [1.9 + d, 0, 0], [-1.14, -1.52, 0]]),
        lambda d: Atoms("SiO3", [[0, 0, 0], [0, 0, 1.5], [0, 1.6, 0], [CUTOFF + d, 0, 0]]),
    ],
    ids=["axes", "neighbors with coordinates", "cutoff"],
)
def test_jumps(change):
    """Energies jump there, forces are finite on both sides, and margins fall to zero."""
    model = random_model(full=(5, 5))
    calc = DeepPotCalculator(model, device="cpu", on_extrapolation="ignore")

    def energy(d):
        return calc.get_potential_energy(change(d))

    for near in (-2e-6, 2e-6):  # closer than 1e-6 Å, distances are equal
        assert np.isfinite(calc.get_forces(change(near))).all()
        system = System.from_atoms(change(near))
        margins = model.descriptor.margins(system, Edges.build(system, CUTOFF + 1))
        assert float(margins[0]) == pytest.approx(2e-6, rel=1e-3)
    assert abs(energy(2e-6) - energy(-2e-6)) > 1e-3
    assert abs(energy(4e-6) - energy(2e-6)) < 1e-5 and abs(energy(-4e-6) - energy(-2e-6)) < 1e-5


def test_exchange_without_coordinates_is_continuous():
    """Of neighbors with 1/R alone the energy has a kink, no jump."""
    descriptor = DeepPotLocalFrame(SPECIES, CUTOFF, (12, 9), (5, 2)).double()

    def features(d):
        atoms = Atoms("SiO4", [[0, 0, 0], [0, 0, 1.5], [0, 1.6, 0], [1.9 + d, 0, 0], [-1.9, 0, 0]])
        return features_of(atoms, descriptor)[0]

    assert np.abs(features(1e-6) - features(-1e-6)).max() < 1e-6
    slopes = [(features(d + 1e-4) - features(d - 1e-4)) / 2e-4 for d in (-1e-3, 1e-3)]
    assert np.abs(slopes[0] - slopes[1]).max() > 0.1


def test_too_many_neighbors():
    descriptor = DeepPotLocalFrame(["Cu"], 3.0, [11]).double()
    with pytest.raises(InputError, match=r"12 neighbors of Cu within 3 Å.* places for 11; .*sel of at least 12 for Cu"):
        features_of(bulk("Cu"), descriptor)


def test_no_neighbor_for_an_axis():
    descriptor = DeepPotLocalFrame(SPECIES, CUTOFF, (4, 4), axes={"O": ["Si", "Si"]}).double()
    with pytest.raises(
        InputError, match=r"atom 0 has no neighbor within 3.4 Å for axis 2 .*O = \['Si', 'Si'\].*; train"
    ):
        features_of(Atoms("OSiO", [[0, 0, 0], [0, 0, 1.6], [0, 1.9, 0.6]]), descriptor)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cutoff": -1.0}, "cutoff: got -1 Å, need more than 0"),
        ({"sel": [4]}, r"sel: got \[4\], need a number of neighbors for each of Si, O"),
        ({"sel": [0, 3]}, r"sel: got \[0, 3\], need a number"),
        ({"full": [4, 5]}, r"full: got \[4, 5\], need a number for each of Si, O, at most those of sel, \[4, 4\]"),
        ({"axes": {"H": ["O", "O"]}}, r"axes: got H = \['O', 'O'\], need two species .* of Si, O"),
        ({"axes": {"O": ["Si"]}}, r"axes: got O = \['Si'\], need two species"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DeepPotLocalFrame(**{"species": SPECIES, "cutoff": 4.0, "sel": [4, 4], **options})


TABLE = {"data": {"files": ["cu.h5"]}, "energy": {"steps": 6, "widths": [8]}, "output": {"model": "cu.safetensors"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copper")
    write_hdf5(folder / "cu.h5", make_frames(10))
    return folder


def test_training(folder):
    """From a configuration to a model file: places by the data, error bars, and the same values when it is loaded."""
    trained = train(parse_config(TABLE | {"local_frame": {"cutoff": 4.0}}, folder), progress=False)
    model = load_model(folder / "cu.safetensors")
    descriptor = model.descriptor
    most = max(
        int(np.bincount(Edges.build(System.from_atoms(frame.atoms), 4.0).center).max()) for frame in make_frames(10)
    )
    assert isinstance(descriptor, DeepPotLocalFrame)
    assert descriptor.sel == (most,) and descriptor.full == (min(most, 16),)
    assert model.metadata["errors"]["test"]["forces_mae_meV_per_A"] > 0
    calcs = [DeepPotCalculator(each, device="cpu", on_extrapolation="ignore") for each in (trained, model)]
    atoms = make_frames(10).frames[4].atoms
    forces = [calc.get_forces(atoms) for calc in calcs]
    np.testing.assert_array_equal(*forces)
    assert calcs[1].uncertainty["energy"] > 0 and calcs[1].uncertainty["forces"].shape == (len(atoms), 3)


def test_spectra_and_fine_tuning(folder):
    """Heads beside the energy share the descriptor; a start from a model takes its places, though the data have fewer."""
    first = {"dos": {"drawn": 20}, "local_frame": {"cutoff": 3.0, "sel": [40], "full": [4]}}
    model = train(parse_config(TABLE | first | {"output": {"model": "first.safetensors"}}, folder), progress=False)
    assert set(model.heads) == {"energy", "dos"} and isinstance(model.descriptor_of("dos"), DeepPotLocalFrame)
    second = {"start": "first.safetensors", "local_frame": {"cutoff": 3.0}, "output": {"model": "second.safetensors"}}
    tuned = train(parse_config(TABLE | second, folder), progress=False)
    assert (tuned.descriptor.sel, tuned.descriptor.full) == ((40,), (4,))


def test_training_lowers_the_error(folder):
    found = []
    for steps in (1, 150):
        options = {"energy": {"steps": steps, "widths": [16]}, "output": {"model": f"{steps}.safetensors"}}
        model = train(
            parse_config(TABLE | options | {"local_frame": {"cutoff": 3.5, "full": [8]}}, folder), progress=False
        )
        found.append(model.metadata["errors"]["validation"]["forces_mae_meV_per_A"])
    assert found[1] < 0.7 * found[0]


@pytest.mark.parametrize(
    "section, message",
    [
        (
            {"sel": [3]},
            r"local_frame.sel: got \[3\], atoms of cu.h5 have up to \[\d+\] neighbors of Cu within 6 Å; give",
        ),
        ({"sel": [300, 20]}, r"local_frame.sel: got \[300, 20\], need a number of neighbors for each of Cu"),
        ({"sel": [0]}, r"local_frame.sel: got \[0\], need numbers of at least 1"),
        ({"sel": [300], "full": [301]}, r"local_frame.full: got \[301\], need at most the numbers of sel, \[300\]"),
        ({"sel": [300], "full": [3, 4]}, r"local_frame.full: got \[3, 4\], need as many numbers as in sel"),
        ({"axes": {"Cu": ["Cu", "H"]}}, r"local_frame.axes: got Cu = \['Cu', 'H'\], need two species"),
        ({"axes": {"Cu": ["Cu"]}}, r"local_frame.axes.Cu"),
        ({"selection": [4]}, "local_frame.selection"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(section, message, folder):
    with pytest.raises(ValueError, match=message) as caught:
        train(parse_config(TABLE | {"local_frame": section}, folder), progress=False)
    assert "\n" not in str(caught.value)


def test_sections_beside_each_other(folder):
    for other in ({"power_spectrum": {}}, {"descriptor": {"cutoff": 4.0}}):
        with pytest.raises(ValueError, match="leave one out"):
            parse_config(TABLE | {"local_frame": {}} | other, folder)
    directed = {name: entry for name, entry in TABLE.items() if name != "energy"} | {"dipole": {}}
    with pytest.raises(
        ValueError, match="local_frame. for .dipole., but it has no directions; leave .local_frame. out"
    ):
        parse_config(directed | {"local_frame": {}}, folder)
