"""Vectors of pairs, and sums over pairs by atom, as compiled loops: one pass in place of an operation per step."""

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.compiled import compiled


@compiled
def near_pairs(
    positions: NDArray, center: NDArray, neighbor: NDArray, shift: NDArray, offset: NDArray, cutoff: float
) -> tuple[NDArray, NDArray, NDArray, NDArray, float]:
    """Pairs of a list that are closer than the cutoff: (center, neighbor, shift, vec [3, E], shortest distance of all).

    Parameters
    ----------
    positions : array [N, 3], Å
    center, neighbor : arrays [E]
    shift : array [E, 3]
    offset : array [3, E], Å
        Shift @ cell of every pair.
    """
    count, shortest = 0, cutoff
    near = np.empty(len(center), np.bool_)
    for e in range(len(center)):
        i, j, square = center[e], neighbor[e], 0.0
        for a in range(3):
            along = positions[j, a] - positions[i, a] + offset[a, e]
            square += along * along
        distance = np.sqrt(square)
        shortest = min(shortest, distance)
        near[e] = distance < cutoff
        count += near[e]
    own_center, own_neighbor = np.empty(count, center.dtype), np.empty(count, neighbor.dtype)
    own_shift, vec, k = np.empty((count, 3), shift.dtype), np.empty((3, count)), 0
    for e in range(len(center)):
        if near[e]:
            i, j = center[e], neighbor[e]
            own_center[k], own_neighbor[k] = i, j
            for a in range(3):
                own_shift[k, a], vec[a, k] = shift[e, a], positions[j, a] - positions[i, a] + offset[a, e]
            k += 1
    return own_center, own_neighbor, own_shift, vec, shortest


@compiled
def sums_by_atom(
    center: NDArray, neighbor: NDArray, vec: NDArray, slope: NDArray, n_atoms: int
) -> tuple[NDArray, NDArray]:
    """Forces [N, 3] and symmetric sums [N, 6] of 2 vec ⊗ slope, in ASE's order, from ``slope`` [3, E] = dE/dvec."""
    forces, sheared = np.zeros((n_atoms, 3)), np.zeros((n_atoms, 6))
    for e in range(len(center)):
        i, j = center[e], neighbor[e]
        x, y, z, fx, fy, fz = vec[0, e], vec[1, e], vec[2, e], slope[0, e], slope[1, e], slope[2, e]
        forces[i, 0] += fx
        forces[i, 1] += fy
        forces[i, 2] += fz
        forces[j, 0] -= fx
        forces[j, 1] -= fy
        forces[j, 2] -= fz
        sheared[i, 0] += 2 * x * fx
        sheared[i, 1] += 2 * y * fy
        sheared[i, 2] += 2 * z * fz
        sheared[i, 3] += y * fz + z * fy
        sheared[i, 4] += x * fz + z * fx
        sheared[i, 5] += x * fy + y * fx
    return forces, sheared
