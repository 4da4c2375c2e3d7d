"""Structures for tests: random ones without symmetry, and copies that should give the same or nearly the same."""

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError
from ase.symbols import string2symbols

from ase_mlelec.edges import Edges
from ase_mlelec.system import System


def random_atoms(symbols, cell=None, pbc=True, shortest=1.6, seed=0):
    """ase.Atoms at random places, no two closer than ``shortest`` Å (images included).

    Parameters
    ----------
    symbols : str
        e.g. "Si4O3".
    cell
        As for ase.Atoms, or None for a molecule in a small box.
    """
    generator = np.random.default_rng(seed)
    names = string2symbols(symbols)
    box = cell if cell is not None else [1.3 * shortest * len(names) ** (1 / 3)] * 3
    atoms = Atoms(cell=box, pbc=pbc if cell is not None else False)
    for _ in range(10_000):
        trial = atoms + Atoms(names[len(atoms)], positions=generator.random((1, 3)) @ atoms.cell.array)
        if _shortest_distance(trial, shortest) >= shortest:
            atoms = trial
        if len(atoms) == len(names):
            break
    else:
        raise ValueError(f"{symbols} with {shortest} Å between atoms does not fit into {box}; enlarge the cell")
    if cell is None:
        atoms.cell = None
    return atoms


def _shortest_distance(atoms, at_most):
    try:
        edges = Edges.build(System.from_atoms(atoms), at_most)
    except InputError:  # on top of each other
        return 0.0
    return min(edges.vec.norm(dim=1).tolist(), default=at_most)


def random_rotation(seed=0):
    """Proper rotation matrix [3, 3]; vectors turn as v @ R.T."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def turned(atoms, rotation):
    """Copy of ``atoms`` with positions and cell turned by a matrix [3, 3]."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ rotation.T)
    atoms.positions = atoms.positions @ rotation.T
    return atoms


def doubled(atoms):
    """Two copies of ``atoms``: repeated along the first periodic direction, or far apart."""
    if atoms.pbc.any():
        return atoms.repeat([2 if axis == int(np.argmax(atoms.pbc)) else 1 for axis in range(3)])
    copy_ = atoms.copy()
    copy_.positions += [100.0, 0, 0]
    return atoms + copy_


def shifted_by_cells(atoms, seed=0):
    """Copy in which every atom is replaced by a random image of itself."""
    atoms = atoms.copy()
    images = np.random.default_rng(seed).integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    atoms.positions += images @ atoms.cell.array
    return atoms


def pair_at_cutoff(atoms, cutoff, distance):
    """Copy of ``atoms`` in which the pair that is nearest to the cutoff is ``distance`` apart."""
    edges = Edges.build(System.from_atoms(atoms), 1.5 * cutoff)
    apart = edges.vec.norm(dim=1)
    distinct = torch.where(edges.center != edges.neighbor, (apart - cutoff).abs(), torch.inf)
    k = int(distinct.argmin())
    atoms = atoms.copy()
    atoms.positions[edges.neighbor[k]] += (edges.vec[k] * (distance / apart[k] - 1)).numpy()
    return atoms
