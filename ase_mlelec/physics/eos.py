"""Equations of state: energy against volume in closed forms, fitted with standard errors."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


def birch_murnaghan_2(volume: ArrayLike, v0: float, e0: float, bulk_modulus: float) -> NDArray:
    """Energy (eV) at a volume (Å^3) to second order in the strain, where the derivative of the bulk modulus is 4."""
    return birch_murnaghan(volume, v0, e0, bulk_modulus, 4.0)


def birch_murnaghan_4(
    volume: ArrayLike, v0: float, e0: float, bulk_modulus: float, derivative: float, second_derivative: float
) -> NDArray:
    r"""Energy (eV) at a volume (Å^3) to fourth order in the Eulerian strain f.

    .. math::

        E = E_0 + \tfrac{9}{2} V_0 B \left\{ f^2 + (B'-4) f^3 + \tfrac{3}{4}
            \left[ B B'' + (B'-4)(B'-3) + \tfrac{35}{9} \right] f^4 \right\},
        \qquad f = \tfrac{1}{2} \left[ (V_0/V)^{2/3} - 1 \right]

    Parameters
    ----------
    second_derivative : float, Å^3/eV
        B'', the second derivative of the bulk modulus with respect to pressure.

    References
    ----------
    Birch 1952, J. Geophys. Res. 57, 227.
    """
    f = ((v0 / np.asarray(volume, dtype=float)) ** (2 / 3) - 1) / 2
    fourth = 0.75 * (bulk_modulus * second_derivative + (derivative - 4) * (derivative - 3) + 35 / 9)
    return e0 + 4.5 * v0 * bulk_modulus * f**2 * (1 + (derivative - 4) * f + fourth * f**2)


KINDS = {
    "birch-murnaghan": birch_murnaghan,
    "birch-murnaghan-2": birch_murnaghan_2,
    "birch-murnaghan-4": birch_murnaghan_4,
    "murnaghan": murnaghan,
    "vinet": vinet,
}
PARAMETERS = {"birch-murnaghan-2": 3, "birch-murnaghan-4": 5}  # of the others: 4


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


class FourthOrder(EquationOfState):
    """Parameters of an equation of fourth order.

    Attributes
    ----------
    second_derivative, second_error : float, Å^3/eV
        Second derivative of the bulk modulus with respect to pressure, and its standard error.
    """

    second_derivative: float
    second_error: float


def fit(volumes: ArrayLike, energies: ArrayLike, kind: str = "birch-murnaghan") -> EquationOfState:
    """Fit an equation of state.

    The standard errors follow from the residuals: they tell how well the equation describes the energies, and not how
    right these are.

    Parameters
    ----------
    volumes : array [n], Å^3
        At least five, and six for the fourth order.
    energies : array [n], eV
    kind : str
        "birch-murnaghan" (third order), "birch-murnaghan-2", "birch-murnaghan-4", "murnaghan" or "vinet".

    Returns
    -------
    EquationOfState
        The tuple (v0, e0, bulk_modulus, derivative, errors); a FourthOrder has B'' as well. In the second order the
        derivative is 4, with an error of zero.

    Raises
    ------
    ValueError
        For too few points, an unknown kind, a minimum outside the volumes, or energies that no such equation describes.

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
    n_parameters = PARAMETERS.get(kind, 4)
    fewest = max(5, n_parameters + 1)
    if volumes.shape != energies.shape or volumes.ndim != 1 or len(volumes) < fewest:
        raise ValueError(f"got {volumes.shape} volumes and {energies.shape} energies; need at least {fewest} of each")
    curvature, slope, _ = np.polyfit(volumes, energies, 2)
    if curvature <= 0 or not volumes.min() < -slope / (2 * curvature) < volumes.max():
        raise ValueError(
            f"the energies have no minimum between {volumes.min():.3f} and {volumes.max():.3f} Å^3; "
            "shift the range of volumes"
        )
    v0 = -slope / (2 * curvature)
    modulus, lowest = 2 * curvature * v0, energies.min()
    start = (v0, 0.0, modulus, 4.0, -4.0 / modulus)
    scales = (v0, abs(modulus * v0), modulus, 4.0, 4.0 / modulus)
    # fitted around the minimum: total energies are large and would spoil the numerical Jacobian
    accuracy = {"xtol": 1e-12, "ftol": 1e-14, "x_scale": scales[:n_parameters], "method": "trf", "max_nfev": 10_000}
    try:
        values, covariance = curve_fit(KINDS[kind], volumes, energies - lowest, start[:n_parameters], **accuracy)
    except RuntimeError:
        raise ValueError(
            f"the energies from {volumes.min():.3f} to {volumes.max():.3f} Å^3 are far from any {kind} equation; look at "
            "them, and take a smaller range of volumes or a structure that the model knows"
        ) from None
    values[1] += lowest
    return _named(values.tolist(), np.sqrt(np.diag(covariance)).tolist())


def _named(values: Sequence[float], errors: Sequence[Any]) -> EquationOfState:
    """Fitted parameters with their names."""
    if len(values) == 3:
        values, errors = [*values, 4.0], [*errors, 0.0]
    v0, e0, modulus, derivative = values[:4]
    if len(values) == 4:
        return EquationOfState(v0, e0, modulus, derivative, tuple(errors))
    found = FourthOrder(v0, e0, modulus, derivative, tuple(errors[:4]))
    found.second_derivative, found.second_error = values[4], errors[4]
    return found
