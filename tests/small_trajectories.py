"""Structures of copper: along a trajectory, and one by one."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin


def trajectory(n, seed=0):
    atoms = bulk("Cu", cubic=True)
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    atoms.calc = EMT()
    images, options = [], {"temperature_K": 600, "friction": 0.05, "fixcm": False, "rng": np.random.RandomState(seed)}
    dyn = Langevin(atoms, 0.2, **options)
    dyn.attach(lambda: images.append(Atoms(atoms)), interval=1)
    dyn.run(n - 1)
    return images


def displaced(n):
    rng = np.random.default_rng(2)
    found = [bulk("Cu", cubic=True) for _ in range(n)]
    for atoms in found:
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    return found
