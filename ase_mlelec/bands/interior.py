"""A few of the bands of a Hamiltonian: around an energy, or within a window."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ase_mlelec import processes
from ase_mlelec.physics import bands, shift_invert
from ase_mlelec.physics.bloch import BlochSum

DENSE_SIZE = 1200  # functions; up to this size diagonalization is faster than Lanczos iteration


def eigenvalues(
    bloch: BlochSum, kpts: NDArray, *, n_bands: int | None, window: Sequence[float] | None, device: str | torch.device
) -> NDArray:
    """Find the eigenvalues that ``n_bands`` and ``window`` select; see WannierHamiltonian.eigenvalues.

    Processes that work together (see ase_mlelec.processes) share the k-points, here and in all functions below.
    """
    if n_bands is not None and not 1 <= n_bands <= bloch.size:
        raise ValueError(f"n_bands: got {n_bands}, need 1 to {bloch.size}, the number of functions; ask for fewer")
    if window is not None and not (len(window) == 2 and window[0] < window[1]):
        raise ValueError(f"window: got {window}, need (low, high) with low < high, eV")
    if window is None or bloch.size <= DENSE_SIZE:
        return _chosen(all_eigenvalues(bloch, kpts, device), n_bands, window)
    if n_bands is not None:
        return bands_around(bloch, kpts, center=0.5 * (window[0] + window[1]), n_bands=n_bands)
    return bands_within(bloch, kpts, low=window[0], high=window[1])


def all_eigenvalues(bloch: BlochSum, kpts: NDArray, device: str | torch.device) -> NDArray:
    """Find all eigenvalues at k-points, array [K, W], eV, ascending."""
    return processes.of_rows(lambda own: bands.eigenvalues(bloch, own, device), kpts)


def bands_around(bloch: BlochSum, kpts: NDArray, *, center: float, n_bands: int) -> NDArray:
    """Find the bands that at the first k-point are nearest to an energy, eV.

    Returns
    -------
    array [K, n_bands], eV
    """
    if not len(kpts):
        return np.empty((0, n_bands))
    nearest = shift_invert.eigenpairs(bloch.sparse(kpts[0]), center, n_bands)

    def of_point(k):
        matrix, asked = bloch.sparse(k), n_bands
        while True:
            found = shift_invert.eigenpairs(matrix, center, asked)
            missing = max(found.first - nearest.first, nearest.first + n_bands - found.first - asked)
            if missing <= 0:
                return found.energies[nearest.first - found.first :][:n_bands]
            asked = min(asked + 2 * missing, bloch.size)  # eigenvalues come from both sides of the center

    return np.array([nearest.energies[:n_bands], *processes.in_turn([of_point(k) for k in processes.mine(kpts[1:])])])


def bands_within(bloch: BlochSum, kpts: NDArray, *, low: float, high: float) -> NDArray:
    """Find all bands that enter a window of energies, eV, at one of the k-points.

    Returns
    -------
    array [K, n], eV, NaN where a band is outside
    """
    center = 0.5 * (low + high)

    def of_point(k):
        matrix, asked = bloch.sparse(k), min(24, bloch.size)
        while True:
            found = shift_invert.eigenpairs(matrix, center, asked)
            if asked == bloch.size or abs(found.energies - center).max() > 0.5 * (high - low):
                break
            asked = min(2 * asked, bloch.size)
        inside = (found.energies >= low) & (found.energies <= high)
        return found.first + int((found.energies < low).sum()), found.energies[inside]

    found_at = processes.in_turn([of_point(k) for k in processes.mine(kpts)])
    filled = [(first, energies) for first, energies in found_at if len(energies)]
    start = min((first for first, _ in filled), default=0)
    stop = max((first + len(energies) for first, energies in filled), default=0)
    table = np.full((len(kpts), stop - start), np.nan)
    for row, (first, energies) in zip(table, found_at):
        row[first - start : first - start + len(energies)] = energies
    return table


def _chosen(energies, n_bands, window):
    """Select the columns of all eigenvalues [K, W], eV, by n_bands and window."""
    if window is None:
        return energies if n_bands is None else energies[:, :n_bands]
    if not len(energies):
        return energies[:, :n_bands]
    if n_bands is None:
        inside = (energies >= window[0]) & (energies <= window[1])
        return np.where(inside, energies, np.nan)[:, inside.any(0)]
    distance = abs(energies[0] - 0.5 * (window[0] + window[1]))
    first = np.sort(np.argsort(distance, kind="stable")[:n_bands])[0]
    return energies[:, first : first + n_bands]
