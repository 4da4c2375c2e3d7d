"""Bispectrum on grids against LAMMPS: arrays of ``compute sna/grid``, MALA's published ones, and LAMMPS itself.

Those of LAMMPS are made by data/lammps_grids.py; MALA's lie outside the repository, in ../shared/reference.  LAMMPS
leaves out an atom on a grid point; such points are counted and left out here.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from peers import lammps_grid

from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.descriptors.bispectrum import grid_bispectrum
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing import assert_close

DATA = Path(__file__).parents[1] / "data"
FOLDER = Path(__file__).parents[3] / "shared" / "reference"


def assert_grid(found, wanted, atoms, on_atoms, tolerance=1e-13):
    """Equal where no atom sits, which is everywhere but at ``on_atoms`` points."""
    shape = wanted.shape[:3]
    points = np.stack(np.indices(shape), axis=-1) / shape
    apart = points[..., None, :] - atoms.get_scaled_positions()
    free = ~(np.abs(apart - np.round(apart)).max(axis=-1) < 1e-9).any(axis=-1)
    assert (~free).sum() == on_atoms
    assert_close(found[free], wanted[free], tolerance)


@pytest.mark.parametrize("name, on_atoms", [("al_fcc", 4), ("al_distorted", 0), ("mgo", 0)])
def test_arrays_of_lammps(name, on_atoms):
    with np.load(DATA / f"snap_{name}.npz") as stored:
        data = dict(stored)
    params = json.loads(str(data["params"]))
    species = [str(symbol) for symbol in data["species"]]
    atoms = Atoms(data["numbers"], data["positions"], cell=data["cell"], pbc=data["pbc"])
    found = grid_bispectrum(
        atoms,
        data["grid"],
        twojmax=params["twojmax"],
        rfac0=params["rfac0"],
        rmin0=params["rmin0"],
        cutoffs={symbol: 2 * params["rcutfac"] * radius for symbol, radius in zip(species, params["radelem"])},
        weights=dict(zip(species, params["weights"])),
        switch=bool(params["switchflag"]),
        bzero=bool(params["bzeroflag"]),
    )
    assert_grid(found, data["B"], atoms, on_atoms)


@pytest.mark.parametrize("snapshot", [0, 1])
def test_fingerprints_of_mala(snapshot):
    """Beryllium, every 97th point; stored in float32."""
    path = FOLDER / "mala" / "Be2" / f"Be_snapshot{snapshot}.in.npy"
    if not path.exists():
        pytest.skip(f"no reference data in {FOLDER}")
    stored, descriptor = np.load(path)[..., 3:], Bispectrum(["Be"])
    atoms = Atoms(**json.loads(path.with_name(f"Be_snapshot{snapshot}.info.json").read_text())["atoms"])
    system = System.from_atoms(atoms)
    indices = np.arange(0, stored[..., 0].size, 97)
    points = np.stack(np.unravel_index(indices, stored.shape[:3]), axis=1) / stored.shape[:3] @ atoms.cell.array
    with torch.no_grad():
        found = descriptor(system, Edges.build(system, descriptor.cutoff, centers=torch.as_tensor(points))).features
    np.testing.assert_allclose(found, stored.reshape(-1, 91)[indices], rtol=0, atol=1.2e-7 * np.abs(stored).max())


# LAMMPS itself


CELL = [[4.6, 0, 0], [-0.7, 4.1, 0], [1.1, 0.5, 5.0]]


@pytest.mark.peer
@pytest.mark.parametrize(
    "twojmax, options",
    [(6, dict(rmin0=0.4, bzeroflag=1)), (8, dict(switchflag=0)), (10, {}), (10, dict(on_point=True))],
    ids=["6", "8", "10", "atom on a point"],
)
def test_lammps(twojmax, options):
    """Two species with unequal radii and a negative weight in a sheared cell smaller than the cutoff."""
    options = {"rfac0": 0.99363, "rmin0": 0.0, "bzeroflag": 0, "switchflag": 1} | options
    generator, on_point = np.random.default_rng(twojmax), options.pop("on_point", False)
    atoms = Atoms("MgOMgO", cell=CELL, pbc=True)
    atoms.set_scaled_positions((np.array([[0, 0, 0], [5, 5, 0], [0, 5, 5], [5, 0, 5]]) + generator.random((4, 3))) / 10)
    shape, species, cutoffs, weights = (3, 4, 5), ["Mg", "O"], [4.2, 3.5], [1.0, -0.7]
    if on_point:
        atoms.positions -= atoms.positions[1]
    wanted = lammps_grid(atoms, shape, species, twojmax, cutoffs, weights, **options)
    found = grid_bispectrum(
        atoms,
        shape,
        twojmax=twojmax,
        cutoffs=dict(zip(species, cutoffs)),
        weights=dict(zip(species, weights)),
        rfac0=options["rfac0"],
        rmin0=options["rmin0"],
        switch=bool(options["switchflag"]),
        bzero=bool(options["bzeroflag"]),
    )
    assert_grid(found, wanted, atoms, int(on_point))
    if on_point:
        assert np.abs(found[0, 0, 0] - wanted[0, 0, 0]).max() > 0.1 * np.abs(wanted[0, 0, 0]).max()
