"""Meshes of k-points in reduced coordinates: Monkhorst-Pack, pairs k and -k, irreducible by symmetry."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import spglib
from numpy.typing import NDArray

from ase_mlelec.physics.symmetry import found_by


def monkhorst_pack(shape: Sequence[int] | NDArray, shift: Sequence[float] = (0, 0, 0)) -> NDArray:
    """Regular mesh k_i = (n_i + s_i)/N_i, n_i = 0 ... N_i - 1, the last index running fastest.

    Parameters
    ----------
    shape : three ints
        Points along each reciprocal vector.
    shift : three floats
        In steps of the mesh; 0 holds Gamma, 1/2 is the usual shift.

    Returns
    -------
    array [K, 3]
        Moved into [-1/2, 1/2).

    Raises
    ------
    ValueError
        For a shape that is not three positive integers.

    References
    ----------
    Monkhorst and Pack 1976, Phys. Rev. B 13, 5188.

    Examples
    --------
    >>> monkhorst_pack((2, 1, 1), shift=(0.5, 0, 0)).tolist()
    [[0.25, 0.0, 0.0], [-0.25, 0.0, 0.0]]
    """
    mesh, offset = _checked(shape, shift)
    kpts = (np.indices(mesh).reshape(3, -1).T + offset) / mesh
    return kpts - np.floor(kpts + 0.5 + 1e-12)


def time_reversal_pairs(shape: Sequence[int], shift: Sequence[float] = (0, 0, 0)) -> tuple:
    """Half of a Monkhorst-Pack mesh: of every pair k and -k one point, with the weight of both.

    Parameters
    ----------
    shape : three ints
    shift : three floats
        Each 0 or 1/2; other meshes hold no pairs.

    Returns
    -------
    kpts : array [K, 3]
    weights : array [K]
        That add up to 1.

    Raises
    ------
    ValueError
        For another shift.

    Examples
    --------
    >>> kpts, weights = time_reversal_pairs((3, 3, 1))
    >>> len(kpts), round(float(weights.sum()), 12)
    (5, 1.0)
    """
    mesh, offset = _checked(shape, shift)
    if (2 * offset % 1).any():
        raise ValueError(f"shift: got {offset.tolist()}, need 0 or 1/2 so that -k is on the mesh; use monkhorst_pack")
    index = np.indices(mesh).reshape(3, -1).T
    opposite = np.ravel_multi_index(((-index - (2 * offset).astype(int)) % mesh).T, mesh)
    here = np.arange(len(index))
    weights = np.where(opposite == here, 1.0, 2.0) / len(index)
    first = here <= opposite
    return monkhorst_pack(mesh, offset)[first], weights[first]


def irreducible(
    shape: Sequence[int],
    cell: NDArray,
    fractions: NDArray,
    numbers: NDArray,
    shift: Sequence[float] = (0, 0, 0),
    time_reversal: bool = True,
    symprec: float = 0.0001,
) -> tuple:
    """Points of a Monkhorst-Pack mesh that the symmetry of a crystal does not map onto each other.

    Wannier functions may break the symmetry of the crystal: where they do, energies of mapped points differ by as much.

    Parameters
    ----------
    shape : three ints
    cell : array [3, 3], Å
        Rows.
    fractions : array [N, 3]
        Reduced positions of the atoms.
    numbers : array [N]
        Atomic numbers, or any labels that tell different atoms apart.
    shift : three floats
        Each 0 or 1/2.
    time_reversal
        k and -k count as one, also in a crystal without inversion.
    symprec : float, Å

    Returns
    -------
    kpts : array [K, 3]
    weights : array [K]
        That add up to 1.
    mapping : array [N1 N2 N3]
        From the points of monkhorst_pack to rows.

    Raises
    ------
    ValueError
        For another shift, and where spglib finds no symmetry, as for atoms on top of each other.

    References
    ----------
    spglib, Togo and Tanaka 2018, arXiv:1808.01590.
    """
    mesh, offset = _checked(shape, shift)
    if (2 * offset % 1).any():
        raise ValueError(f"shift: got {offset.tolist()}, need 0 or 1/2; use monkhorst_pack for the full mesh")
    crystal: Any = (np.asarray(cell, dtype=float), np.asarray(fractions, dtype=float), np.asarray(numbers))
    shifted = (2 * offset).astype(int)
    found = found_by(
        spglib.get_ir_reciprocal_mesh, mesh, crystal, is_shift=shifted, symprec=symprec, is_time_reversal=time_reversal
    )
    if found is None:
        raise ValueError("cell: got a crystal without symmetry, not even the identity; check cell and positions")
    mapping, grid = found
    # the order of the points in spglib is looked up, not assumed
    place = np.ravel_multi_index((grid % mesh).T, mesh)
    target = np.empty(len(grid), dtype=int)
    target[place] = place[mapping]
    rows, mapping, counts = np.unique(target, return_inverse=True, return_counts=True)
    return monkhorst_pack(mesh, offset)[rows], counts / len(grid), mapping


def _checked(shape, shift):
    array = np.asarray(shape)
    if array.shape != (3,) or array.dtype.kind not in "iu" or (array < 1).any():
        raise ValueError(f"shape: got {shape!r}, need three positive integers such as (6, 6, 1)")
    return array, np.broadcast_to(np.asarray(shift, dtype=float), 3)
