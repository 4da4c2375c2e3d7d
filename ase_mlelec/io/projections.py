"""Levels of a calculation and their shares on atoms, of any program; densities of states are made from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

from ase_mlelec import units
from ase_mlelec.deprecated import formerly_positional

CHUNK = 1 << 22  # numbers in one piece of the broadening
WIDE = 60.0  # kT, of a gap
FULL = 1e-6  # electrons; levels that hold the electrons up to this are filled


@dataclass(frozen=True)
class Projections:
    """Band energies and their weights on atoms, from which a DOS of any width and grid can be made.

    Attributes
    ----------
    eigenvalues : array [K, M], eV
    kpoint_weights : array [K]
        Sum 2 (spin degeneracy included), or 1 where the bands are spinors (noncollinear and spin-orbit runs). Of a
        spin-polarized run every k-point comes twice, once with the bands of each spin.
    site_weights : array [K, M, N]
        The share of each band on each atom, sum over N at most 1 (spilling).
    """

    eigenvalues: np.ndarray
    kpoint_weights: np.ndarray
    site_weights: np.ndarray

    @property
    def complete_below(self) -> float:
        """float, eV; above this energy bands are missing from the calculation at some k-point."""
        return float(self.eigenvalues[:, -1].min())

    @formerly_positional("width")
    def site_dos(self, energies: ArrayLike, *, width: float) -> np.ndarray:
        """Site-projected DOS [N, S] in states/eV on ``energies`` [S] (eV), Gaussian exp(-(x/width)^2)."""
        weights = self.kpoint_weights[:, None, None] * self.site_weights
        return broaden(self.eigenvalues.ravel(), weights.reshape(-1, weights.shape[-1]), energies, width)

    @formerly_positional("width")
    def total_dos(self, energies: ArrayLike, *, width: float) -> np.ndarray:
        """Total DOS [S] in states/eV, all bands with full weight (no spilling)."""
        weights = np.broadcast_to(self.kpoint_weights[:, None], self.eigenvalues.shape)
        return broaden(self.eigenvalues.ravel(), weights.reshape(-1, 1), energies, width)[0]

    def edges(self, n_electrons: float) -> tuple[float, float]:
        """Highest filled and lowest empty level, eV, of a number of electrons at 0 K; in a metal both are the same.

        Raises
        ------
        ValueError
            For more electrons than the bands hold. Without any empty band the second is infinite.
        """
        order = np.argsort(self.eigenvalues, axis=None)
        levels = self.eigenvalues.ravel()[order]
        filled = np.cumsum(np.broadcast_to(self.kpoint_weights[:, None], self.eigenvalues.shape).ravel()[order])
        if filled[-1] < n_electrons - FULL:
            raise ValueError(f"got {n_electrons:g} electrons, and bands for {filled[-1]:g}")
        highest = int(np.argmax(filled > n_electrons - FULL))
        if filled[highest] > n_electrons + FULL:
            return float(levels[highest]), float(levels[highest])
        return float(levels[highest]), float(levels[highest + 1]) if highest + 1 < len(levels) else np.inf

    def fermi_level(self, n_electrons: float, *, temperature: float) -> float:
        """Fermi level, eV, at which Fermi-Dirac occupations of the levels add up to ``n_electrons``.

        At 0 K it is the highest filled level of a metal, and the middle of the gap of an insulator.

        Parameters
        ----------
        n_electrons : float
        temperature : float, K

        Raises
        ------
        ValueError
            For as many electrons as the bands hold, or more.
        """
        filled, empty = self.edges(n_electrons)
        if not np.isfinite(empty):
            raise ValueError(f"got {n_electrons:g} electrons, which fill all bands")
        kt = units.KB * temperature

        def excess(level):
            return self.kpoint_weights @ expit((level - self.eigenvalues) / kt).sum(axis=1) - n_electrons

        low, high = self.eigenvalues.min() - 100 * kt, self.eigenvalues.max() + 100 * kt
        if kt <= 0 or empty - filled > WIDE * kt:  # the excess is zero to rounding within the gap
            return (filled + empty) / 2
        return float(brentq(excess, low, high, xtol=1e-10))

    def n_electrons(self, level: float, *, temperature: float) -> float:
        """Number of electrons in the levels, at a Fermi level (eV) and temperature (K)."""
        return float(self._occupied(level, temperature).sum())

    def halves(self) -> tuple["Projections", "Projections"]:
        """Projections on the first and the second half of the k-points: spin up and spin down, where there are two."""
        n = len(self.eigenvalues) // 2
        parts = [slice(None, n), slice(n, None)]
        first, second = (
            Projections(self.eigenvalues[part], self.kpoint_weights[part], self.site_weights[part]) for part in parts
        )
        return first, second

    def _occupied(self, level, temperature):
        """Electrons [K, M] in each level."""
        kt = max(units.KB * temperature, 1e-9)
        return self.kpoint_weights[:, None] * expit(np.clip((level - self.eigenvalues) / kt, -700, 700))

    def projected_share(self, level: float, *, temperature: float) -> float:
        """Part of the electrons, at a Fermi level (eV) and temperature (K), that is in the shares of the atoms."""
        occupied = self._occupied(level, temperature)
        return float((occupied * self.site_weights.sum(axis=2)).sum() / occupied.sum())

    def normalized(self) -> "Projections":
        """Projections with the shares of every band scaled to the sum 1; bands without any share are divided evenly."""
        total = self.site_weights.sum(axis=2, keepdims=True)
        even = 1 / self.site_weights.shape[2]
        shares = np.divide(self.site_weights, total, out=np.full_like(self.site_weights, even), where=total > 0)
        return replace(self, site_weights=shares)

    def averaged(self, equivalent: Sequence[int] | NDArray) -> "Projections":
        """Projections with the mean share of all atoms that symmetry makes equivalent.

        Where a mesh of k-points is reduced by the symmetry of the crystal, shares of equivalent atoms differ at a point;
        all points of its star together give each of these atoms the mean.

        Parameters
        ----------
        equivalent : array [N]
            The same number for atoms that are equivalent.
        """
        _, members = np.unique(np.asarray(equivalent), return_inverse=True)
        mean = np.equal.outer(members, members) / np.bincount(members)[members]
        return replace(self, site_weights=self.site_weights @ mean)


def broaden(levels: ArrayLike, weights: ArrayLike, energies: ArrayLike, width: float) -> NDArray:
    """Sum of normalized Gaussians, Σ_l weights[l] exp(-((e - levels[l])/width)²)/(width √π).

    Parameters
    ----------
    levels : array [L], eV
    weights : array [L, n]
    energies : array [S], eV
    width : float, eV

    Returns
    -------
    array [n, S]

    Raises
    ------
    ValueError
        For a width that is not positive.
    """
    levels, weights, energies = (np.asarray(each, dtype=float) for each in (levels, weights, energies))
    if width <= 0:
        raise ValueError(f"Gaussian width must be positive, got {width} eV")
    dos, step = np.zeros((weights.shape[1], len(energies))), max(1, CHUNK // max(len(energies), 1))
    for start in range(0, len(levels), step):
        part = slice(start, start + step)
        dos += weights[part].T @ np.exp(-(((energies - levels[part, None]) / width) ** 2))
    return dos / (width * np.sqrt(np.pi))
