"""Structures of the silicon data that are made and not found by MD."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from ase_mlelec.data.frames import read_hdf5

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "dft"))
import silicon_labels
import silicon_lattices
import silicon_structures

DATA = Path(__file__).parents[1] / "examples" / "data" / "silicon.h5"
MADE = {
    "diamond": "dense",
    "packed": "dense",
    "crowd": "dense",
    "tin": "lattice",
    "strained": "lattice",
    "wave": "lattice",
}


@pytest.fixture(scope="module")
def stored():
    if not DATA.exists():
        pytest.skip("reads the data of the checkout")
    return {frame.name: frame for frame in read_hdf5(DATA)}


@pytest.mark.parametrize("phase", MADE)
def test_structures_of_the_data_can_be_made_again(stored, phase):
    """Each from its seed, at the place of its plan, in the group that its name and volume give it."""
    make = getattr(silicon_lattices, f"{MADE[phase]}_snapshot")
    plans = [*silicon_lattices.DENSE_PLAN, *silicon_lattices.LATTICE_PLAN]
    found = 0
    for _, n_atoms, _, low, high, count, first in (plan for plan in plans if plan[0] == phase):
        for k in range(count):
            name = f"{phase}-{n_atoms}-0K-{first + k:03d}"
            if name not in stored:
                continue
            atoms, frame = make(phase, n_atoms, 0, low + (high - low) * (k + 0.5) / count, first + k), stored[name]
            np.testing.assert_allclose(atoms.cell.array, frame.atoms.cell.array, atol=1e-7)
            np.testing.assert_allclose(atoms.positions, frame.atoms.positions, atol=1e-7)
            assert frame.group == silicon_labels.role(name, atoms.get_volume() / n_atoms)
            found += 1
    assert found >= 10


def test_no_seed_twice():
    plans = (
        silicon_structures.PLAN,
        silicon_structures.MODEL_PLAN,
        silicon_structures.LARGE_PLAN,
        silicon_structures.OBLIQUE_PLAN,
    )
    plans += (silicon_lattices.DENSE_PLAN, silicon_lattices.LATTICE_PLAN, silicon_lattices.GLASS_PLAN)
    seeds = [first + k for plan in plans for _, _, ts, _, _, count, first in plan for k in range(len(ts) * count)]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 1000


def test_beta_tin():
    """Both cells are the same crystal, in which each atom has four neighbors and two a little farther."""
    distances = {}
    for n_atoms in 2, 4:
        atoms = silicon_lattices.beta_tin(n_atoms, 14.5, 0.55)
        assert len(atoms) == n_atoms and atoms.get_volume() / n_atoms == pytest.approx(14.5)
        center, found = neighbor_list("id", atoms, 5.0)
        distances[n_atoms] = [np.sort(found[center == k]) for k in range(n_atoms)]
    for each in distances[2] + distances[4]:
        np.testing.assert_allclose(each, distances[4][0], atol=1e-9)
    edge = (4 * 14.5 / 0.55) ** (1 / 3)
    assert distances[4][0][:4] == pytest.approx(edge * np.hypot(0.5, 0.55 / 4))
    assert distances[4][0][4:6] == pytest.approx(0.55 * edge)


def test_doubled_cells_have_the_waves():
    """A wave fits into a cell if it has a whole number of periods along each vector."""
    points = ([0, 0, 0.5], [0.5, 0, 0.5])  # L and X
    for cell, point in zip(silicon_lattices.DOUBLED, points):
        assert abs(np.linalg.det(cell)) == pytest.approx(2)
        assert np.allclose((np.array(cell) @ point) % 1, 0)


def test_sheared_keeps_the_volume():
    atoms = Atoms("Si2", [[0, 0, 0], [1, 1, 1]], cell=[3, 4, 5], pbc=True)
    places = atoms.get_scaled_positions()
    silicon_lattices.sheared(atoms, 0.05, np.random.default_rng(1))
    assert atoms.get_volume() == pytest.approx(60)
    assert np.ptp(atoms.cell.angles()) > 1
    np.testing.assert_allclose(atoms.get_scaled_positions(), places, atol=1e-12)


def test_mesh_of_beta_tin_has_its_symmetry():
    atoms = silicon_lattices.beta_tin(2, 14.5, 0.55)
    atoms.info["phase"] = "tin"
    assert silicon_labels.meshes(atoms) == ((13, 13, 13),) * 2
