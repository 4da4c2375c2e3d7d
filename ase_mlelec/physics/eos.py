"""Equations of state: energy against volume, fitted with standard errors."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import curve_fit


def birch_murnaghan(volume, v0, e0, bulk_modulus, derivative):
    """Energy (eV) of a third-order Birch-Murnaghan solid.

    E = E0 + 9/16 B V0 ((x - 1)^3 B' + (x - 1)^2 (6 - 4 x)), x = (V0/V)^(2/3)

    Source: Birch, Phys. Rev. 71, 809 (1947).
    """
    x = np.cbrt(v0 / np.asarray(volume)) ** 2
    return e0 + 9 / 16 * bulk_modulus * v0 * ((x - 1) ** 3 * derivative + (x - 1) ** 2 * (6 - 4 * x))


def murnaghan(volume, v0, e0, bulk_modulus, derivative):
    """Energy (eV) of a Murnaghan solid, whose bulk modulus is linear in the pressure.

    Source: Murnaghan, Proc. Natl. Acad. Sci. 30, 244 (1944).
    """
    volume = np.asarray(volume)
    return (
        e0
        + bulk_modulus * volume / derivative * ((v0 / volume) ** derivative / (derivative - 1) + 1)
        - v0 * bulk_modulus / (derivative - 1)
    )


class EquationOfState(NamedTuple):
    """Parameters of a fitted equation of state; ``errors`` are the standard errors of the first four."""

    v0: float  # Å^3
    e0: float  # eV
    bulk_modulus: float  # eV/Å^3
    derivative: float  # of the bulk modulus with respect to pressure
    errors: tuple


KINDS = {"birch-murnaghan": birch_murnaghan, "murnaghan": murnaghan}


def fit(volumes, energies, kind="birch-murnaghan"):
    """Fit an equation of state.

    volumes : array [n], Å^3; energies : array [n], eV; n at least 5
    kind : "birch-murnaghan" or "murnaghan"

    Returns EquationOfState, a tuple (v0, e0, bulk_modulus, derivative, errors).

    Raises ValueError for too few points, an unknown kind, or a minimum outside the volumes.
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
    return EquationOfState(*map(float, values), tuple(map(float, np.sqrt(np.diag(covariance)))))
