"""Zeros in place of forces and stresses that were not calculated."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_mlelec.data.data_set import Frame
from ase_mlelec.data.frames import read_frames
from ase_mlelec.data.placeholders import drop_zeros

HEXAGONAL = [[2.46, 0, 0], [-1.23, 1.23 * 3**0.5, 0], [0, 0, 15]]
HELD = {
    "fcc": bulk("Cu", cubic=True),
    "diamond": bulk("Si"),
    "rock salt, 64 atoms": bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2,
    "hcp": bulk("Mg"),
    "graphene": Atoms("C2", cell=HEXAGONAL, scaled_positions=[[0, 0, 0.5], [1 / 3, 2 / 3, 0.5]], pbc=True),
    "far atoms": Atoms("H2", [[0, 0, 0], [0, 0, 9]]),
    "one atom": Atoms("Cu", cell=[2, 3, 4], pbc=True),
}
FREE = {
    "wurtzite": bulk("ZnO", "wurtzite", a=3.2, c=5.2),
    "slab": fcc111("Cu", (1, 1, 3), vacuum=6),
    "molecule": molecule("H2O"),
    "molecule in a cell": Atoms("N2", [[3, 3, 3], [3, 3, 4.1]], cell=[6, 6, 7], pbc=True),
}


def kept(atoms, forces=None):
    """Whether forces, zeros by default, are kept."""
    frame = Frame(atoms, {"energy": 1.0, "forces": np.zeros((len(atoms), 3)) if forces is None else forces})
    notes = drop_zeros([frame])
    assert bool(notes) == ("forces" not in frame.labels)
    return "forces" in frame.labels


@pytest.mark.parametrize("name", HELD)
def test_zeros_by_symmetry_are_forces(name):
    assert kept(HELD[name])


@pytest.mark.parametrize("name", FREE)
def test_other_zeros_are_none(name):
    assert not kept(FREE[name])
    forces = np.zeros((len(FREE[name]), 3))
    forces[0, 0] = 1e-8
    assert kept(FREE[name], forces)


@pytest.mark.parametrize("name", ["fcc", "rock salt, 64 atoms", "graphene"])
def test_atoms_that_moved(name):
    atoms = HELD[name].copy()
    atoms.rattle(0.05, seed=1)
    assert not kept(atoms)


def test_files(tmp_path):
    """A frame without forces among others; energies stay."""
    images = []
    for k in range(3):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=k)
        forces = np.full((4, 3), 0.1 * (k != 1))
        atoms.calc = SinglePointCalculator(atoms, energy=1.0 + k, forces=forces)
        images.append(atoms)
    write(tmp_path / "a.extxyz", images)
    with pytest.warns(UserWarning, match="a.extxyz: all forces of 1 structures are exactly zero, which no calculation"):
        frames = read_frames(tmp_path / "a.extxyz")
    assert frames.counts == {"energy": 3, "forces": 2} and "forces" not in frames[1].labels
    system = tmp_path / "deepmd"
    (system / "set.000").mkdir(parents=True)
    (system / "type.raw").write_text("0\n" * 4)
    (system / "type_map.raw").write_text("Cu\n")
    arrays = {
        "coord": [atoms.positions.ravel() for atoms in images],
        "box": [atoms.cell.array.ravel() for atoms in images],
        "energy": [1.0, 2.0, 3.0],
        "force": [atoms.calc.results["forces"].ravel() for atoms in images],
    }
    for name, values in arrays.items():
        np.save(system / "set.000" / f"{name}.npy", np.array(values))
    with pytest.warns(UserWarning, match="deepmd: all forces of 1 structures are exactly zero"):
        assert read_frames(system).counts == {"energy": 3, "forces": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "b.extxyz", images[::2])
        assert read_frames(tmp_path / "b.extxyz").counts == {"energy": 2, "forces": 2}
