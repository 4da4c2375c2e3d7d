"""Polylogarithms and the antiderivatives of the Fermi function and of the entropy density."""

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from ase_mlelec.physics.arrays import numpy_or_torch

# Polylogarithms


def _polylog_series(n_terms):
    """Coefficients of Li_2 and Li_3 of 1 - e^-u in powers u^1, u^2, ...: dLi_n/du = ``Li_{n-1}`` / (e^u - 1), Li_1
    = u.
    """
    bernoulli = [Fraction(1)]  # B_k/k!, the series of u/(e^u - 1)
    for k in range(1, n_terms):
        bernoulli.append(-sum(b / math.factorial(k - j + 1) for j, b in enumerate(bernoulli)))
    series = [[Fraction(p == 1) for p in range(1, n_terms + 1)]]
    for _ in (2, 3):
        series.append(
            [sum(c * bernoulli[p - q] for q, c in enumerate(series[-1][:p], 1)) / p for p in range(1, n_terms + 1)]
        )
    return [[float(c) for c in coefficients] for coefficients in series[1:]]


_LI2_SERIES, _LI3_SERIES = _polylog_series(20)  # u reaches ln 2 of a convergence radius 2π: 0.11^20


def _horner(coefficients, u):
    total = torch.full_like(u, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * u + c
    return total * u


def li1(depth: Tensor) -> Tensor:
    """Li_1(-e^depth) for depth <= 0."""
    return -torch.log1p(torch.exp(depth))


def _li2(depth):
    """Li_2(-e^depth) for depth <= 0."""
    return _horner(_LI2_SERIES, li1(depth))


def _li3(depth):
    """Li_3(-e^depth) for depth <= 0."""
    return _horner(_LI3_SERIES, li1(depth))


def side_and_depth(x: Tensor) -> tuple[Tensor, Tensor]:
    """Side of the Fermi level, ±1 (0 belongs to +1), and depth -``|x|``; unlike abs and sign, differentiable at 0."""
    side = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return side, -side * x


@numpy_or_torch
def polylog(order: Tensor, x: Tensor) -> Tensor:
    """Polylogarithm Li_n(-e^x), n = 0, 1, 2, 3, differentiable any number of times.

    For x <= 0 a power series in log(1 + e^x); for x > 0 the inversion formula
    Li_n(-e^x) + (-1)^n Li_n(-e^-x) = 0 - {1, x, π²/6 + x²/2, π²x/6 + x³/6}[n].

    Parameters
    ----------
    order : int
        0 to 3.
    x : Tensor [...]

    Raises
    ------
    ValueError
        For another order.

    References
    ----------
    Ellis et al. 2021, Eqs. (A1)-(A3); L. Lewin, Polylogarithms and Associated Functions, 1981.

    Examples
    --------
    Li_1(-e^x) is -ln(1 + e^x):

    >>> round(float(polylog(1, 0.0)), 6), round(-math.log(2), 6)
    (-0.693147, -0.693147)
    """
    side, depth = side_and_depth(x)
    above = torch.where(x >= 0, x, 0.0)
    if order == 0:
        return -torch.sigmoid(x)
    if order == 1:
        return li1(depth) - above
    if order == 2:
        return -side * _li2(depth) - torch.where(x >= 0, math.pi**2 / 6 + above**2 / 2, 0.0)
    if order == 3:
        return _li3(depth) - math.pi**2 / 6 * above - above**3 / 6
    raise ValueError(f"order: got {order.item():g}, need 0, 1, 2 or 3; higher polylogarithms are not used here")


# Antiderivatives.  Each function returns (tail, jump): the antiderivative less its zero-temperature part is
# tail(x) + jump θ(x), where the tail vanishes as e^-|x| on both sides, all its terms having one sign.


def f0(x: Tensor) -> tuple[Tensor, float]:
    return li1(side_and_depth(x)[1]), 0.0


def f1(x: Tensor) -> tuple[Tensor, float]:
    side, depth = side_and_depth(x)
    return side * (_li2(depth) - depth * li1(depth)), math.pi**2 / 6


def f2(x: Tensor) -> tuple[Tensor, float]:
    depth = side_and_depth(x)[1]
    return depth**2 * li1(depth) - 2 * depth * _li2(depth) + 2 * _li3(depth), 0.0


def s0(x: Tensor) -> tuple[Tensor, float]:
    side, depth = side_and_depth(x)
    return side * (depth * li1(depth) - 2 * _li2(depth)), -(math.pi**2) / 3


def s1(x: Tensor) -> tuple[Tensor, float]:
    depth = side_and_depth(x)[1]
    return -(depth**2) * li1(depth) + 3 * depth * _li2(depth) - 3 * _li3(depth), 0.0


def slope_moment(order: int) -> Callable[[Tensor], tuple[Tensor, float]]:
    """Antiderivative of -x^n df/dx by parts: -x^n f + n ``F_{n-1}``."""

    def antiderivative(x):
        side, depth = side_and_depth(x)
        tail, jump = (f0, f1, f2)[order - 1](x) if order else (0.0, 0.0)
        return order * tail - x**order * side * torch.sigmoid(depth), order * jump if order else 1.0

    return antiderivative


@numpy_or_torch
def fermi_moment(order: Tensor, x: Tensor) -> Tensor:
    r"""Antiderivative F_n of x^n f(x), n = 0, 1, 2, without the powers of kT.

    .. math::

        F_0 = x + \mathrm{Li}_1, \quad F_1 = x^2/2 + x \, \mathrm{Li}_1 - \mathrm{Li}_2, \quad
        F_2 = x^3/3 + x^2 \mathrm{Li}_1 - 2x \, \mathrm{Li}_2 + 2 \, \mathrm{Li}_3, \quad
        \mathrm{Li}_n = \mathrm{Li}_n(-e^x)

    Parameters
    ----------
    order : int
        0 to 2.
    x : Tensor [...]

    Raises
    ------
    ValueError
        For another order.

    References
    ----------
    Ellis et al. 2021, Eqs. (A4)-(A6).
    """
    _check_order(order, 2)
    tail, jump = (f0, f1, f2)[int(order)](x)
    below = torch.where(x >= 0, 0.0, x)
    return below ** (order + 1) / (order + 1) + tail + jump * (x >= 0).to(x.dtype)


@numpy_or_torch
def entropy_moment(order: Tensor, x: Tensor) -> Tensor:
    r"""Antiderivative S_n of x^n s(x), n = 0, 1, with s = f ln f + (1 - f) ln(1 - f), without the powers of kT.

    .. math::

        S_0 = -x \, \mathrm{Li}_1 + 2 \, \mathrm{Li}_2, \quad
        S_1 = -x^2 \mathrm{Li}_1 + 3x \, \mathrm{Li}_2 - 3 \, \mathrm{Li}_3, \quad
        \mathrm{Li}_n = \mathrm{Li}_n(-e^x)

    Both are 0 at x = -∞.

    Parameters
    ----------
    order : int
        0 or 1.
    x : Tensor [...]

    Raises
    ------
    ValueError
        For another order.

    References
    ----------
    Ellis et al. 2021, Eqs. (A7), (A8).
    """
    _check_order(order, 1)
    tail, jump = (s0, s1)[int(order)](x)
    return tail + jump * (x >= 0).to(x.dtype)


def _check_order(order, highest):
    if order not in range(highest + 1):
        raise ValueError(f"order: got {order.item():g}, need an integer from 0 to {highest}")
