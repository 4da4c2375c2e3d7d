"""Distances of neighboring atoms in NumPy, so that looking at data needs no torch."""

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial import cKDTree

CUTOFF = 6.0  # Å; models have cutoffs up to here


def neighbor_distances(atoms: Atoms, cutoff: float = CUTOFF) -> tuple[NDArray, NDArray, NDArray]:
    """Pairs of atoms within a cutoff, each in both directions.

    Parameters
    ----------
    cutoff : float, Å

    Returns
    -------
    center, neighbor : array [E] of int
        ``neighbor`` may be an image of the same atom.
    distance : array [E], Å
    """
    center, neighbor, _, distance = neighbor_vectors(atoms, cutoff)
    return center, neighbor, distance


def neighbor_vectors(atoms: Atoms, cutoff: float) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """As ``neighbor_distances``, with the vectors from the centers to their neighbors, array [E, 3], Å, before distances."""
    positions, images, owners = _with_images(atoms, cutoff)
    if not len(positions):
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros((0, 3)), np.zeros(0)
    found = cKDTree(positions).sparse_distance_matrix(cKDTree(images), cutoff, output_type="ndarray")
    # the first images are the atoms themselves
    found = found[found["i"] != found["j"]]
    return found["i"], owners[found["j"]], images[found["j"]] - positions[found["i"]], found["v"]


def _with_images(atoms, cutoff):
    """Positions [N, 3] in the cell, positions [M, 3] of all atoms near the cell, the atoms first, and their atoms [M]."""
    positions = atoms.get_positions(wrap=bool(atoms.pbc.any()) and atoms.cell.rank == 3)
    axes = [k for k in range(3) if atoms.pbc[k] and atoms.cell.lengths()[k] > 0]
    images, owners = positions, np.arange(len(positions))
    if not axes or not len(positions):
        return positions, images, owners
    cell = atoms.cell.complete().array
    normals = np.linalg.inv(cell)  # columns; a plane's distance is the inverse of their length
    reach = cutoff * np.linalg.norm(normals, axis=0)  # of the cutoff, in fractional coordinates
    for k in axes:
        repeats = np.arange(-int(np.ceil(reach[k])) - 1, int(np.ceil(reach[k])) + 2)
        repeats = repeats[np.argsort(abs(repeats), kind="stable")]  # the atoms themselves first
        shifted = (images[None] + repeats[:, None, None] * cell[k]).reshape(-1, 3)
        owners = np.tile(owners, len(repeats))
        here = shifted @ normals[:, k]
        own = positions @ normals[:, k]
        near = (here > own.min() - reach[k] - 1e-9) & (here < own.max() + reach[k] + 1e-9)
        images, owners = shifted[near], owners[near]
    return positions, images, owners
