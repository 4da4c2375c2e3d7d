"""Small clean data sets for the survey of data: copper by ASE's EMT, whose labels are exact derivatives."""

import functools

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from ase_mlelec.data.frames import Frame, Frames


def labeled(atoms, name=""):
    """Frame with energy, forces and virial by EMT."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    labels = {"energy": float(atoms.get_potential_energy()), "forces": atoms.get_forces()}
    if atoms.cell.rank == 3:
        labels["virial"] = -atoms.get_stress(voigt=False) * atoms.get_volume()
    return Frame(Atoms(atoms), labels, name)


def clean(n=24, seed=0):
    """n cells of 8 atoms around fcc: of one cell, and, every second one, strained."""
    return Frames([Frame(f.atoms.copy(), {**f.labels}, f.name) for f in _clean(n, seed)])


@functools.cache
def _clean(n, seed):
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        atoms = bulk("Cu", a=3.6) * (2, 2, 2)
        if k % 2:
            strain = rng.normal(0, 0.008, (3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        frames.append(labeled(atoms, f"cu-{k}"))
    return frames


def trajectory(n=12, seed=0):
    """n steps in one direction from a displaced cell, each a little away from the one before."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", a=3.6) * (2, 2, 2)
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    velocity = rng.normal(0, 0.02, atoms.positions.shape)
    frames = []
    for k in range(n):
        atoms.positions += velocity
        frames.append(labeled(atoms, f"step-{k}"))
    return Frames(frames)


def mapped(frames, **functions):
    """The frames with labels changed by functions, by label."""
    return Frames(
        [
            Frame(
                f.atoms,
                {name: functions.get(name, lambda value: value)(value) for name, value in f.labels.items()},
                f.name,
            )
            for f in frames
        ]
    )
