"""Makes snap_*.npz beside this file: arrays of ``compute sna/grid`` of LAMMPS in float64.

    python tests/data/lammps_grids.py           # in an environment with lammps and mpich

Crystals with atoms on points of the grid, far from rest, and of two species with unequal radii and weights.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ase.build import bulk

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from peers import lammps_grid  # noqa: E402

OPTIONS = {"rfac0": 0.99363, "rmin0": 0.0, "bzeroflag": 0, "switchflag": 1}


def structures():
    """Yield (name, Atoms with a lower triangular cell, grid, species, radii in units of 2 rcutfac, weights)."""
    yield "al_fcc", bulk("Al", cubic=True), (4, 4, 6), ["Al"], [0.5], [1.0]
    distorted = bulk("Al", cubic=True) * (2, 1, 1)
    distorted.set_cell([[8.3, 0, 0], [0.4, 3.9, 0], [-0.3, 0.3, 4.1]], scale_atoms=True)
    distorted.rattle(0.2, seed=1)
    yield "al_distorted", distorted, (5, 4, 5), ["Al"], [0.5], [1.0]
    oxide = bulk("MgO", "rocksalt", 4.25, cubic=True)
    oxide.rattle(0.1, seed=2)
    yield "mgo", oxide, (4, 5, 5), ["Mg", "O"], [0.5, 0.42], [1.0, 0.7]


for name, atoms, shape, species, radii, weights in structures():
    largest = 4.676 if len(species) == 1 else 4.2
    cutoffs = [2 * largest * radius for radius in radii]
    found = lammps_grid(atoms, shape, species, 10, cutoffs, weights, **OPTIONS)
    params = OPTIONS | {"rcutfac": largest, "twojmax": 10, "radelem": radii, "weights": weights}
    np.savez_compressed(
        HERE / f"snap_{name}.npz",
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        grid=shape,
        species=species,
        B=found,
        params=json.dumps(params),
    )
