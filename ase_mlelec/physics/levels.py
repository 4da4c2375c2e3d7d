"""Occupations, Fermi level and density of states from eigenvalues on a mesh of k-points."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from ase_mlelec import units

_FLAT = 1e-13  # electrons per state that count as none, as in physics.fermi


# Levels


def occupations(energies: NDArray, mu: float, temperature: float) -> NDArray:
    """Fermi-Dirac occupation of levels [...], between 0 and 1; at temperature 0 the step, with 1/2 at mu."""
    kT = units.KB * float(temperature)
    if kT == 0:
        return 0.5 - 0.5 * np.sign(np.asarray(energies) - mu)
    return expit((mu - np.asarray(energies)) / kT)


def fermi_level(
    energies: NDArray, weights: NDArray, n_electrons: float, temperature: float, degeneracy: int = 2
) -> float:
    """Fermi level of levels on a mesh, eV: the root of g Σ_k w_k Σ_n f(ε_nk) = n_electrons.

    In a gap too wide for N to change in float64 it is where electrons above equal holes below: at temperature 0 its
    middle.

    Parameters
    ----------
    energies : array [K, n], eV
    weights : array [K]
        Adding up to 1.
    n_electrons : float
    temperature : float, K
        0 is the limit.
    degeneracy
        Electrons per state, 2 without spin.

    Raises
    ------
    ValueError
        For fewer electrons than none or more than the levels hold, and for a negative temperature.

    Examples
    --------
    In the middle of the gap between a full and an empty level:

    >>> round(float(fermi_level(np.array([[0.0, 1.0]]), np.array([1.0]), 2, 0)), 9)
    0.5
    """
    energies, weights = np.asarray(energies, dtype=float), np.asarray(weights, dtype=float)
    capacity = degeneracy * energies.shape[1]
    if not 0 <= n_electrons <= capacity:
        raise ValueError(
            f"n_electrons: got {n_electrons:g}, need 0 to {capacity:g}, which the bands hold; check the "
            "count of valence electrons and the spin degeneracy"
        )
    if not temperature >= 0:
        raise ValueError(f"temperature: got {temperature:g} K, need a number >= 0; give kelvin")
    flat = _FLAT * capacity
    margin = 50 * units.KB * temperature + 1e-9
    edges = (energies.min() - margin, energies.max() + margin)

    def root(target):
        low, high = edges
        while high - low > 4e-16 * max(1.0, abs(low), abs(high)):
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            number = degeneracy * (weights @ occupations(energies, middle, temperature)).sum()
            low, high = (middle, high) if number < target else (low, middle)
        return 0.5 * (low + high)

    return 0.5 * (root(n_electrons - flat) + root(n_electrons + flat))


def density_of_states(
    energies: ArrayLike, levels: NDArray, weights: NDArray, width: float, degeneracy: int = 2
) -> NDArray:
    """Density of states by Gaussians exp(-(x/width)²), states/eV; its integral is g W.

    Parameters
    ----------
    energies : array [S], eV
    levels : array [K, n], eV
    weights : array [K]
        Adding up to 1.
    width : float, eV
    degeneracy
        Electrons per state, 2 without spin.

    Returns
    -------
    array [S]

    Raises
    ------
    ValueError
        For a width that is not positive.
    """
    energies, levels = np.asarray(energies, dtype=float), np.asarray(levels, dtype=float)
    if not width > 0:
        raise ValueError(f"width: got {width:g} eV, need more than 0; half the spacing of the levels is a start")
    flat, weight = levels.ravel(), np.repeat(weights, levels.shape[1])
    order = np.argsort(flat)
    flat, weight = flat[order], weight[order]
    total = np.zeros(len(energies))
    for index, energy in enumerate(energies):  # only what lies within 7 widths: exp(-49) = 5e-22
        near = slice(*np.searchsorted(flat, [energy - 7 * width, energy + 7 * width]))
        total[index] = weight[near] @ np.exp(-(((energy - flat[near]) / width) ** 2))
    return degeneracy * total / (width * np.sqrt(np.pi))
