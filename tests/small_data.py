"""A small labeled data set, made in a moment: copper by ASE's EMT, with spectra that follow the atomic energies."""

import copy
import functools

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.geometry import get_distances

from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.testing import random_atoms
from ase_mlelec.train.config import Config

ENERGIES = np.linspace(-6.0, 6.0, 25)  # eV
WIDTH = 0.8  # eV
SPILL = 1.02  # total DOS over the sum of the atomic ones
ATTRIBUTES = {
    "dos_width_eV": WIDTH,
    "energy_reference": "made up",
    "valence_electrons": {"Cu": 2},
    "settings": {"program": "EMT", "electronic_temperature_K": 1000.0},
}


def copper(n, seed):
    """n fcc or bcc cells of 4 or 2 atoms, strained and rattled."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        kind, a = (("fcc", 3.6), ("bcc", 2.87))[i % 2]
        atoms = bulk("Cu", kind, a=a, cubic=True)
        strain = rng.normal(0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        yield atoms


def labels_of(atoms):
    """Energy, forces and virial by EMT; for every atom a band of two electrons that moves with its energy, and an empty
    one."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    centers = -2.0 + 0.5 * atoms.get_potential_energies()
    ados = (gaussian(ENERGIES - centers[:, None]) + gaussian(ENERGIES - 3.0)) * 2.0
    return {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "virial": -atoms.get_stress(voigt=False) * atoms.get_volume(),
        "ados": ados,
        "dos": SPILL * ados.sum(axis=0),
    }


def gaussian(x):
    return np.exp(-((x / WIDTH) ** 2)) / (WIDTH * np.pi**0.5)


GROUPS = ("train", "train", "train", "validation", "test")


@functools.cache
def copper_frames(n, seed):
    return [Frame(Atoms(atoms), labels_of(atoms), f"cu-{i}", GROUPS[i % 5]) for i, atoms in enumerate(copper(n, seed))]


def make_frames(n=12, seed=0):
    """Data set of n structures in the groups train, validation and test (every fourth and fifth is held out)."""
    made = copper_frames(-(-n // 20) * 20, seed)[:n]  # the first n of any larger number
    return Frames(copy.deepcopy(made), ENERGIES, dict(ATTRIBUTES))


def make_wannier_frames(n=10, seed=0):
    """Data set of n cells Si2O4 whose oxygens have a vector and a symmetric tensor, sums over their Si neighbors."""
    frames = []
    for i in range(n):
        atoms, labels = copy.deepcopy(labeled_silica(seed + i))
        frames.append(Frame(atoms, labels, f"sio-{i}", GROUPS[i % 5]))
    return Frames(frames, attributes={"valence_charges": {"Si": 4, "O": 6}})


@functools.cache
def labeled_silica(seed):
    atoms = random_atoms("Si2O4", cell=[5.0, 5.2, 5.4], seed=seed)
    return atoms, wannier_labels(atoms)


def wannier_labels(atoms):
    vectors, tensors = np.zeros((len(atoms), 3)), np.zeros((len(atoms), 3, 3))
    silicon = atoms.numbers == 14
    for i in np.nonzero(~silicon)[0]:
        apart, distance = get_distances(atoms.positions[i], atoms.positions[silicon], cell=atoms.cell, pbc=True)
        weight = np.exp(-(distance[0] ** 2) / 2)
        vectors[i] = weight @ apart[0]
        tensors[i] = np.einsum("j,ja,jb->ab", weight, apart[0], apart[0]) + (1.5 + weight.sum()) * np.eye(3)
    return {
        "atomic_dipole": vectors,
        "summed_dipole": vectors.sum(axis=0),
        "atomic_polarizability": tensors,
        "polarizability": tensors.sum(axis=0),
    }


def hot_configuration(folder, frames, hot):
    """Config of a linear energy and a density of states, with the same at another temperature of the electrons."""
    write_hdf5(folder / "cold.h5", frames)
    write_hdf5(folder / "hot.h5", hot)
    config = Config(
        data={"files": ["cold.h5"], "hot": ["hot.h5"]},
        output={"model": "m.safetensors"},
        power_spectrum={"cutoff": 4.5, "near": 0.0, "n_pair": 5, "n_radial": 2, "l_max": 2},
        energy={"widths": []},
        dos={},
    )
    config._folder = folder
    return config
