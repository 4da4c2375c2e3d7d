"""Equations of state: energy against volume by ASE's closed forms, fitted with standard errors."""

from collections.abc import Callable
from typing import NamedTuple

import ase.eos
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import curve_fit


def _by_volume(energy: Callable) -> Callable:
    """An equation of ``ase.eos`` as a function of volume, v0, e0, bulk modulus and its derivative, in this order."""

    def equation(volume: ArrayLike, v0: float, e0: float, bulk_modulus: float, derivative: float) -> NDArray:
        return energy(np.asarray(volume), e0, bulk_modulus, derivative, v0)

    equation.__doc__ = f"Energy (eV) at a volume (Å^3): ``ase.eos.{energy.__name__}``."
    return equation


birch_murnaghan = _by_volume(ase.eos.birchmurnaghan)
murnaghan = _by_volume(ase.eos.murnaghan)
vinet = _by_volume(ase.eos.vinet)
KINDS = {"birch-murnaghan": birch_murnaghan, "murnaghan": murnaghan, "vinet": vinet}


class EquationOfState(NamedTuple):
    """Parameters of a fitted equation of state.

    Attributes
    ----------
    v0 : float, Å^3
    e0 : float, eV
    bulk_modulus : float, eV/Å^3
    derivative : float
        Derivative of the bulk modulus with respect to pressure.
    errors : tuple of float
        Standard errors of the first four.
    """

    v0: float
    e0: float
    bulk_modulus: float
    derivative: float
    errors: tuple


def fit(volumes: ArrayLike, energies: ArrayLike, kind: str = "birch-murnaghan") -> EquationOfState:
    """Fit an equation of state.

    Parameters
    ----------
    volumes : array [n], Å^3
        At least five.
    energies : array [n], eV
    kind : str
        "birch-murnaghan" (third order), "murnaghan" or "vinet".

    Returns
    -------
    EquationOfState
        The tuple (v0, e0, bulk_modulus, derivative, errors).

    Raises
    ------
    ValueError
        For too few points, an unknown kind, or a minimum outside the volumes.

    Examples
    --------
    >>> volumes = [36.0, 38.0, 40.0, 42.0, 44.0]
    >>> found = fit(volumes, vinet(volumes, 40.0, -214.0, 0.6, 4.3), "vinet")
    >>> round(found.v0, 6), round(found.bulk_modulus, 6)
    (40.0, 0.6)
    """
    volumes, energies = np.asarray(volumes, dtype=float), np.asarray(energies, dtype=float)
    if kind not in KINDS:
        raise ValueError(f"got kind={kind!r}; choose one of {', '.join(KINDS)}")
    if volumes.shape != energies.shape or volumes.ndim != 1 or len(volumes) < 5:
        raise ValueError(f"got {volumes.shape} volumes and {energies.shape} energies; need at least 5 of each")
    curvature, slope, _ = np.polyfit(volumes, energies, 2)
    if curvature <= 0 or not volumes.min() < -slope / (2 * curvature) < volumes.max():
        raise ValueError(
            f"the energies have no minimum between {volumes.min():.3f} and {volumes.max():.3f} Å^3; "
            "shift the range of volumes"
        )
    v0 = -slope / (2 * curvature)
    start = (v0, energies.min(), 2 * curvature * v0, 4.0)
    # fitted around the minimum: total energies are large and would spoil the numerical Jacobian
    values, covariance = curve_fit(
        KINDS[kind],
        volumes,
        energies - start[1],
        (v0, 0.0, start[2], 4.0),
        xtol=1e-12,
        ftol=1e-14,
        x_scale=(v0, abs(start[2] * v0), start[2], 4.0),
        method="trf",
    )
    values[1] += start[1]
    v0, e0, bulk_modulus, derivative = map(float, values)
    return EquationOfState(v0, e0, bulk_modulus, derivative, tuple(map(float, np.sqrt(np.diag(covariance)))))
