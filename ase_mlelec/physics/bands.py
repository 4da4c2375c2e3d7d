"""Eigenvalues, velocities and projections of H(k)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.physics.bloch import BlochSum, check_kpts, is_invariant

DEGENERATE = 1e-6  # eV; closer levels are treated as one subspace
_CHUNK = 2**24  # complex numbers in the matrices of one batch of k-points: 256 MB
_PARTS = 16  # of such a batch for eigenvalues alone, in memory that is used again


def _batches(kpts, size, n_matrices=1):
    """Slices of k-points whose matrices fit in memory."""
    step = max(1, int(_CHUNK // (n_matrices * size * size)))
    return (slice(start, start + step) for start in range(0, len(kpts), step))


# Eigenstates


def eigenvalues(bloch: BlochSum, kpts: NDArray, device: str | torch.device = "cpu") -> NDArray:
    """All eigenvalues at k-points, array [K, W], eV, ascending.

    Parameters
    ----------
    bloch : BlochSum
        H(R) in eV.
    kpts : array [K, 3]
        Reduced coordinates.
    """
    kpts = check_kpts(kpts)
    energies = np.empty((len(kpts), bloch.size))
    real = is_invariant(kpts) & bloch.is_real  # a real matrix takes a quarter of the time
    for kind in (False, True):
        rows = np.flatnonzero(real == kind)
        matrix = None  # new memory for every batch would take time
        for batch in _batches(rows, bloch.size, _PARTS):
            matrix = bloch.lower(kpts[rows[batch]], device, out=matrix)
            energies[rows[batch]] = torch.linalg.eigvalsh(matrix.real.contiguous() if kind else matrix).cpu().numpy()
    return energies


def eigenstates(bloch: BlochSum, kpts: NDArray, device: str | torch.device = "cpu") -> tuple[NDArray, ...]:
    """Energies [K, W], eV, ascending, and states [K, W, W], one per column in the basis of the functions."""
    kpts = check_kpts(kpts)
    energies = np.empty((len(kpts), bloch.size))
    states = np.empty((len(kpts), bloch.size, bloch.size), dtype=complex)
    for batch in _batches(kpts, bloch.size, 2):
        found = torch.linalg.eigh(bloch.lower(kpts[batch], device))
        energies[batch], states[batch] = (part.cpu().numpy() for part in found)
    return energies, states


def velocity_matrices(bloch: BlochSum, kpts: NDArray, cell: NDArray, device: str | torch.device = "cpu") -> tuple:
    """Energies and the operator dH/dk between the states.

    Parameters
    ----------
    bloch : BlochSum
        H(R) in eV.
    kpts : array [K, 3]
        Reduced coordinates.
    cell : array [3, 3], Å
        Rows.

    Returns
    -------
    energies : array [K, W], eV, ascending
    states : array [K, W, W]
    matrices : array [K, 3, W, W], eV Å
        ``<m|dH/dk|n>``.

    Notes
    -----
    Keep K small: there are 3 K matrices.
    """
    kpts = check_kpts(kpts)
    energies, states = torch.linalg.eigh(bloch.lower(kpts, device))
    matrices = states.mH[:, None] @ bloch.gradient(kpts, cell, device) @ states[:, None]
    return energies.cpu().numpy(), states.cpu().numpy(), matrices.cpu().numpy()


def velocities(bloch: BlochSum, kpts: ArrayLike, cell: NDArray, device: str | torch.device = "cpu") -> tuple:
    """Slopes of the bands, dE/dk in eV Å, k in 1/Å including the 2π; divide by ħ for a velocity.

    Degenerate eigenvalues (to 1e-6 eV) split along each direction separately: their slopes are the eigenvalues of
    dH/dk within their subspace, ascending.

    Parameters
    ----------
    bloch : BlochSum
        H(R) in eV.
    kpts : array [K, 3]
        Reduced coordinates.
    cell : array [3, 3], Å
        Rows.

    Returns
    -------
    energies : array [K, W], eV, ascending
    slopes : array [K, W, 3], eV Å

    References
    ----------
    Hellmann-Feynman theorem; Wang et al. 2006, Phys. Rev. B 74, 195118, Eq. (27).
    """
    kpts = check_kpts(kpts)
    energies, slopes = np.empty((len(kpts), bloch.size)), np.empty((len(kpts), bloch.size, 3))
    for batch in _batches(kpts, bloch.size, 12):
        energies[batch], _, matrices = velocity_matrices(bloch, kpts[batch], cell, device)
        slopes[batch] = np.einsum("kann->kna", matrices).real
        for k, start, stop in _subspaces(energies[batch]):
            block = matrices[k, :, start:stop, start:stop]
            slopes[batch][k, start:stop] = np.linalg.eigvalsh(block).T
    return energies, slopes


def _subspaces(energies):
    """(k, first, last + 1) of the groups of degenerate levels, each level of a group close to the next."""
    close = np.diff(energies, axis=1) < DEGENERATE
    for k in np.flatnonzero(close.any(1)):
        groups = np.split(np.arange(energies.shape[1]), np.flatnonzero(~close[k]) + 1)
        yield from ((int(k), int(group[0]), int(group[-1]) + 1) for group in groups if len(group) > 1)


def projections(bloch: BlochSum, kpts: ArrayLike, groups: Sequence, device: str | torch.device = "cpu") -> tuple:
    """Weight of groups of functions, such as layers or orbitals, in every state ("fat bands").

    Parameters
    ----------
    bloch : BlochSum
        H(R) in eV.
    kpts : array [K, 3]
        Reduced coordinates.
    groups : sequence of index arrays into the W functions
        A partition of them gives weights that add up to 1.

    Returns
    -------
    energies : array [K, W], eV, ascending
    weights : array [K, W, len(groups)]

    Raises
    ------
    ValueError
        For an index that is no function.

    Notes
    -----
    Within a degenerate level only the sum over its states means something.
    """
    kpts = check_kpts(kpts)
    groups = [np.atleast_1d(group) for group in groups]
    for group in groups:
        if len(group) and not (0 <= group.min() and group.max() < bloch.size):
            raise ValueError(
                f"groups: got index {group.min()} to {group.max()}, need 0 to {bloch.size - 1}; count the "
                "functions from zero"
            )
    energies, weights = np.empty((len(kpts), bloch.size)), np.empty((len(kpts), bloch.size, len(groups)))
    for batch in _batches(kpts, bloch.size, 3):
        level, states = torch.linalg.eigh(bloch.lower(kpts[batch], device))
        share = states.real**2 + states.imag**2
        weights[batch] = torch.stack([share[:, group].sum(1) for group in groups], dim=-1).cpu().numpy()
        energies[batch] = level.cpu().numpy()
    return energies, weights
