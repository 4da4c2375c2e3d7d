"""The script that made the ice data set, as far as it goes without the programs for DFT."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from ase.geometry import get_distances

from ase_mlelec.data.frames import read_frames

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "dft"))
import ice
import ice_dynamics
import ice_labels
from ice_structures import OH_LENGTH, PLAN, ice_atoms, ice_vii, is_sound, sample, snapshot


def test_ice_rules():
    """Two protons on the bonds of every oxygen, two pointing to it, one on each bond; arrangements differ."""
    arrangements = set()
    for seed in range(4):
        cell, oxygens, donors, bonds = ice_vii(3.0, np.random.default_rng(seed))
        assert len(oxygens) == 16 and (np.bincount(donors, minlength=16) == 2).all()
        ends = oxygens[donors] + bonds
        away = get_distances(ends, oxygens, cell=np.diag(cell), pbc=True)[1]
        assert np.allclose(away.min(axis=1), 0, atol=1e-9)
        acceptors = away.argmin(axis=1)
        assert (np.bincount(acceptors, minlength=16) == 2).all()
        middles = get_distances(oxygens[donors] + bonds / 2, cell=np.diag(cell), pbc=True)[1] + 9 * np.eye(32)
        assert middles.min() > 1.0
        arrangements.add(tuple(donors))
    assert len(arrangements) == 4


def test_molecules_at_rest():
    atoms = ice_atoms(3.0, np.random.default_rng(0))
    assert atoms.get_chemical_formula() == "H32O16" and atoms.get_volume() == pytest.approx(6**3)
    for k in range(16):
        assert atoms.get_distances(3 * k, [3 * k + 1, 3 * k + 2], mic=True) == pytest.approx([OH_LENGTH] * 2)


def test_phases():
    """Protons near their oxygen, in the middle, or on the way, and never too close to anything."""
    ratios = {}
    for phase in ("molecular", "hopping", "symmetric"):
        atoms = snapshot(phase, 2.75, 3)
        assert is_sound(atoms)
        distances = np.sort(atoms.get_all_distances(mic=True)[atoms.symbols == "H"][:, atoms.symbols == "O"], axis=1)
        ratios[phase] = (distances[:, 0] / distances[:, 1]).mean()
    assert ratios["molecular"] < ratios["hopping"] < ratios["symmetric"] and ratios["symmetric"] > 0.85


def test_plan(tmp_path, monkeypatch):
    seeds = [seed for *_, count, first in PLAN for seed in range(first, first + count)]
    names = ("RESPONSES", "FLUID_RESPONSES", "TAUGHT_RESPONSES", "FURTHER_RESPONSES")
    seeds += [seed for name in names for *_, seed in getattr(ice_labels, name)]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 1000
    monkeypatch.setattr("ice_structures.PLAN", [("molecular", 2.9, 3.1, 2, 0), ("close", 2.6, 2.8, 1, 400)])
    monkeypatch.setattr(sys, "argv", ["ice.py", "sample", str(tmp_path / "first.extxyz")])
    ice.main()
    names = ["molecular-2950-000", "molecular-3050-001", "close-2700-400"]
    assert [name for name in names if name in (tmp_path / "first.extxyz").read_text()] == names
    size = (tmp_path / "first.extxyz").stat().st_size
    sample(str(tmp_path / "first.extxyz"))  # all is there
    assert (tmp_path / "first.extxyz").stat().st_size == size


def test_data_set(tmp_path):
    """Dipoles of ions and centroids, virials with what pw.x lacks, and Born charges whose sum vanishes."""
    rng, stress = np.random.default_rng(0), np.diag([-0.1, -0.2, -0.3])
    (tmp_path / "response").mkdir()
    structures = {}
    for name in "molecular-2900-000", "hot-2700-303":
        atoms = structures[name] = ice_atoms(2.9, rng)
        shift = rng.normal(0, 0.05, (16, 3))
        centroids = atoms.positions[atoms.symbols == "O"] + shift
        arrays = {"numbers": atoms.numbers, "cell": atoms.cell.array, "positions": atoms.positions}
        labels = {"energy": -7.0, "forces": np.ones((48, 3)), "stress": stress, "centroids": centroids}
        np.savez(tmp_path / f"{name}.npz", **arrays, **labels)
    small = snapshot("molecular", 2.92, 810, repeat=1)
    arrays = {"numbers": small.numbers, "cell": small.cell.array, "positions": small.positions}
    born = rng.normal(size=(len(small), 3, 3))
    np.savez(tmp_path / "response" / "molecular-2920-810.npz", **arrays, born_charges=born, dielectric=3 * np.eye(3))
    ice_labels.collect(tmp_path, tmp_path / "ice.h5")
    frames = {frame.name: frame for frame in read_frames(tmp_path / "ice.h5")}
    assert {name: frame.group for name, frame in frames.items()} == {
        "molecular-2900-000": "train",
        "hot-2700-303": "test",
        "response-molecular-2920-810": "train",
    }
    for name, atoms in structures.items():
        labels = frames[name].labels
        wanted = ice_labels.PULAY_VIRIAL * 48 * np.eye(3) - stress * atoms.get_volume()
        np.testing.assert_allclose(labels["virial"], wanted, rtol=1e-6)
        charges = np.where(atoms.symbols == "O", 6.0 - 8.0, 1.0)
        moved = labels["atomic_dipole"]
        assert not moved[atoms.symbols == "H"].any()
        np.testing.assert_allclose(labels["dipole"], charges @ atoms.positions - 8 * moved.sum(axis=0), atol=1e-4)
    found = frames["response-molecular-2920-810"].labels["born_charges"]
    np.testing.assert_allclose(found, born - born.mean(axis=0), atol=1e-6)
    assert set(frames["response-molecular-2920-810"].labels) == {"born_charges"}
    (response,) = read_frames(tmp_path / "ice_polarizability.h5")
    # the dipole of a cell is its volume times ε_0 (ε - 1) E, and a polarizability volume that over 4π ε_0 E
    wanted = 2 * small.get_volume() / (4 * np.pi) * np.eye(3)
    np.testing.assert_allclose(response.labels["polarizability"], wanted, rtol=1e-6)
    np.testing.assert_allclose(response.labels["born_charges"], found, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The implementation of `fixcm=True`")
def test_hot_dynamics_end_before_atoms_come_too_close():
    class Attraction(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=("energy",), system_changes=()):
            self.results = {"energy": 0.0, "forces": -3.0 * atoms.positions}

    atoms = snapshot("molecular", 2.92, 810, repeat=1)
    frames = list(ice_dynamics.hot_dynamics(atoms, Attraction(), 300, np.random.default_rng(0), 400))
    steps = [step for step, _ in frames]
    assert steps == list(range(0, 10 * len(steps), 10)) and len(steps) < 41
    assert all(is_sound(frame, closest=(0.9, 0.7, 1.6)) for _, frame in frames)
