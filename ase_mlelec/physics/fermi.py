"""Fermi-Dirac statistics of a density of states that is piecewise linear on an energy grid, integrated exactly.

With x = (ε - μ)/kT and f = 1/(1 + e^x), every integral ∫ D(ε) g(x) dε is a sum of weights, w_i = ∫ h_i(ε) g(x) dε, over
the hat functions h_i of the grid. A segment wider than kT takes the closed form (A10), in which the antiderivatives of
g are split into the zero-temperature step, a jump at μ (the Sommerfeld term) and a tail that decays as e^-``|x|``:
nothing large is ever subtracted. In a segment narrower than kT the differences in (A10) cancel by (kT/width)^2, but g
is smooth, and Gauss-Legendre quadrature has no error left.

References: Ellis et al. 2021, Appendix A.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics import filling
from ase_mlelec.physics.arrays import check_finite, numpy_or_torch, to_array
from ase_mlelec.physics.dos_checks import check_dos, check_filling, check_grid, check_temperature
from ase_mlelec.physics.polylog import f0, f1, f2, li1, s0, s1, side_and_depth, slope_moment

_GAUSS_NODES, _GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(10)  # the poles of f, x = ±iπ, are far: error < 1e-20
COLDEST_KT = 1e-30  # eV; stands for temperature 0, where every x is infinite or 0
_LARGEST_X = 800.0  # e^-800 is 0 in float64, while x^3 e^-x stays finite


# Weights


def _entropy_density(x):
    """s(x) = f ln f + (1 - f) ln(1 - f), even in x."""
    depth = side_and_depth(x)[1]
    return depth * torch.sigmoid(depth) + li1(depth)


def _step_number(left, width, kT, fill):
    """Hat functions of a segment times the step θ(μ - ε); `fill` is the fraction of the segment below μ."""
    return width * (fill - fill**2 / 2), width * fill**2 / 2


def _step_energy(left, width, kT, fill):
    """As _step_number, times x = (ε - μ)/kT."""
    start, end = _step_number(left, width, kT, fill)
    return ((left * start + width**2 * (fill**2 / 2 - fill**3 / 3)) / kT, (left * end + width**2 * fill**3 / 3) / kT)


class _Kernel(NamedTuple):
    """Weight function g(x) of an integral over a DOS, with the antiderivatives for exact integration."""

    value: Callable  # g(x)
    first: Callable  # antiderivative of g, less the step
    second: Callable  # antiderivative of x g, less the step
    step: Callable | None = None  # integrals over the zero-temperature part of g


_NUMBER = _Kernel(lambda x: torch.sigmoid(-x), f0, f1, _step_number)  # f
_ENERGY = _Kernel(lambda x: x * torch.sigmoid(-x), f1, f2, _step_energy)  # x f
_ENTROPY = _Kernel(_entropy_density, s0, s1)  # s
_SLOPE = [
    _Kernel(lambda x, n=n: x**n * torch.sigmoid(x) * torch.sigmoid(-x), slope_moment(n), slope_moment(n + 1))
    for n in range(3)
]  # -x^n df/dx


def _thermal_energy(temperature):
    return (units.KB * temperature).clamp(min=COLDEST_KT)


def _hat_weights(kernel, energies, mu, temperature):
    """Integrals of the hat functions of the grid times g((ε - μ)/kT), [..., S] eV, for mu and temperature [...]."""
    mu, kT = mu[..., None], _thermal_energy(temperature)[..., None]
    width = energies.diff()
    narrow = width <= kT
    if narrow.all():
        start, end = _quadrature(kernel, energies, width, mu, kT)
    elif not narrow.any():
        start, end = _closed_form(kernel, energies, width, mu, kT)
    else:
        start, end = (
            torch.where(narrow, a, b)
            for a, b in zip(_quadrature(kernel, energies, width, mu, kT), _closed_form(kernel, energies, width, mu, kT))
        )
    return torch.nn.functional.pad(start, (0, 1)) + torch.nn.functional.pad(end, (1, 0))


def _quadrature(kernel, energies, width, mu, kT):
    """Integrals over each segment times its falling and its rising hat function, by Gauss-Legendre."""
    node = 0.5 + 0.5 * energies.new_tensor(_GAUSS_NODES)
    left = (energies[:-1] - mu)[..., None]
    value = kernel.value((left + width[:, None] * node) / kT[..., None]) * energies.new_tensor(0.5 * _GAUSS_WEIGHTS)
    return width * (value * (1 - node)).sum(-1), width * (value * node).sum(-1)


def _closed_form(kernel, energies, width, mu, kT):
    """As _quadrature, by (A10) for the tails plus the exact integral of the step."""
    left, right = energies[:-1] - mu, energies[1:] - mu
    holds_mu = (left < 0) & (right >= 0)  # half open, as in side_and_depth: a grid point at μ counts once
    x = ((energies - mu) / kT).clamp(-_LARGEST_X, _LARGEST_X)
    first, second = (_difference(antiderivative(x), holds_mu) for antiderivative in (kernel.first, kernel.second))
    start = kT * (first * right - kT * second) / width
    end = kT * (kT * second - first * left) / width
    if kernel.step is None:
        return start, end
    fill = torch.where(holds_mu, -left / width, (right < 0).to(left.dtype))
    step_start, step_end = kernel.step(left, width, kT, fill)
    return start + step_start, end + step_end


def _difference(antiderivative, holds_mu):
    tail, jump = antiderivative
    return tail.diff(dim=-1) + jump * holds_mu.to(tail.dtype)


@numpy_or_torch
def occupation(energies: Tensor, mu: Tensor, temperature: Tensor) -> Tensor:
    """Fermi-Dirac occupation f = 1/(1 + e^x), x = (ε - μ)/kT; at temperature 0 the step, with 1/2 at μ.

    Parameters
    ----------
    energies : Tensor [...], eV
        Any broadcastable shape; need not be a grid.
    mu : Tensor [...], eV
    temperature : Tensor [...], K

    Raises
    ------
    ValueError
        For NaN and for a negative temperature.

    References
    ----------
    Ellis et al. 2021, Eq. (A1).

    Examples
    --------
    >>> float(occupation(-4.0, mu=-4.0, temperature=300))
    0.5
    """
    check_finite(energies=energies, mu=mu)
    check_temperature(temperature)
    return torch.sigmoid((mu - energies) / _thermal_energy(temperature))


@numpy_or_torch
def integration_weights(energies: Tensor, mu: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Weights (w_N, w_E, w_TS) that integrate a piecewise-linear DOS exactly: I = Σ_i w_i D(ε_i).

    .. math::

        w_N \cdot D &= \int D f \, d\varepsilon && \text{electrons} \\
        w_E \cdot D &= \int \varepsilon D f \, d\varepsilon && \text{band energy, eV; absolute, not minus } \mu N \\
        w_{TS} \cdot D &= kT \int D \, [f \ln f + (1-f) \ln(1-f)] \, d\varepsilon && -TS \text{, eV}

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
        Spacing free.
    mu : Tensor [...], eV
    temperature : Tensor [...], K
        Broadcast against mu; 0 is the limit.

    Returns
    -------
    three Tensors [..., S]
        Differentiable with respect to every argument.

    Raises
    ------
    ValueError
        For energies that are not an increasing grid, NaN, or a negative temperature.

    References
    ----------
    Ellis et al. 2021, Eqs. (A4)-(A10).
    """
    check_grid(energies)
    check_finite(mu=mu)
    check_temperature(temperature)
    mu, temperature = torch.broadcast_tensors(mu, temperature)
    kT = _thermal_energy(temperature)[..., None]
    number, relative_energy, entropy = (
        _hat_weights(kernel, energies, mu, temperature) for kernel in (_NUMBER, _ENERGY, _ENTROPY)
    )
    return number, mu[..., None] * number + kT * relative_energy, kT * entropy


@numpy_or_torch
def entropy_weights(energies: Tensor, mu: Tensor, temperature: Tensor) -> Tensor:
    """Weights of the entropy, w·D = -k ∫ D [f ln f + (1-f) ln(1-f)] dε >= 0 in eV/K; finite where -TS/T is 0/0.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
        Spacing free.
    mu : Tensor [...], eV
    temperature : Tensor [...], K

    Returns
    -------
    Tensor [..., S]

    Raises
    ------
    ValueError
        As integration_weights does.

    References
    ----------
    Ellis et al. 2021, Eqs. (A7), (A8), (A10).
    """
    check_grid(energies)
    check_finite(mu=mu)
    check_temperature(temperature)
    return -units.KB * _hat_weights(_ENTROPY, energies, *torch.broadcast_tensors(mu, temperature))


@numpy_or_torch
def slope_weights(energies: Tensor, mu: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (k_0, k_1, k_2) of the thermal window: k_n·D = ∫ D x^n f (1-f) dε in electrons, x = (ε - μ)/kT.

    They give every response to μ and T: dN/dμ = k_0·D/kT, dN/dT = k_1·D/T, d(E - μN)/dT = k k_2·D at fixed μ.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
        Spacing free.
    mu : Tensor [...], eV
    temperature : Tensor [...], K

    Returns
    -------
    three Tensors [..., S]

    Raises
    ------
    ValueError
        As integration_weights does.

    References
    ----------
    Derivative of Ellis et al. 2021, Eqs. (A4)-(A6) with respect to μ and T.
    """
    check_grid(energies)
    check_finite(mu=mu)
    check_temperature(temperature)
    mu, temperature = torch.broadcast_tensors(mu, temperature)
    return tuple(_hat_weights(kernel, energies, mu, temperature) for kernel in _SLOPE)


@numpy_or_torch
def level_slopes(energies: Tensor, dos: Tensor, mu: Tensor, temperature: Tensor) -> Tensor:
    """Derivatives dμ/dD = -w_N/(dN/dμ) of the Fermi level by the values of the DOS, at a fixed number of electrons.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV
    mu : Tensor [...], eV
        The Fermi level of ``dos``.
    temperature : Tensor [...], K

    Returns
    -------
    Tensor [..., S], eV²
        Zero where dN/dμ is exactly zero, as in a gap at temperature 0.

    Raises
    ------
    ValueError
        As integration_weights does, and for a DOS that does not fit the grid.

    References
    ----------
    Implicit function theorem for N(μ) = n, Ellis et al. 2021, text after Eq. (A10).
    """
    check_dos(energies, dos)
    check_finite(mu=mu)
    check_temperature(temperature)
    mu, temperature = torch.broadcast_tensors(mu, temperature)
    return -_per_window(energies, dos, mu, temperature)[..., None] * _hat_weights(_NUMBER, energies, mu, temperature)


def _per_window(energies, dos, mu, temperature):
    """dμ/dN [...], eV: the inverse of the number of states in the thermal window, times kT; 0 where there are none."""
    window = (_hat_weights(_SLOPE[0], energies, mu, temperature) * dos).sum(-1)
    responds = window != 0
    return torch.where(responds, _thermal_energy(temperature), 0.0) / torch.where(responds, window, 1.0)


# Fermi level


def fermi_level(
    energies: ArrayLike | Tensor,
    dos: ArrayLike | Tensor,
    n_electrons: ArrayLike | Tensor,
    temperature: ArrayLike | Tensor,
) -> Any:
    """Fermi level μ, eV: the root of N(μ) = w_N(μ)·D = n_electrons.

    In a gap so wide that N does not change in float64, μ is where electrons above equal holes below, which tends to
    mid-gap at temperature 0. Differentiable any number of times with respect to dos, n_electrons and temperature by
    the implicit function theorem, dμ = (dn - w_N·dD - (dN/dT) dT) / (dN/dμ); where dN/dμ is exactly zero, as in a gap
    at temperature 0, the derivatives are set to zero.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
        Spacing free.
    dos : Tensor [..., S], states/eV including spin degeneracy
    n_electrons : Tensor [...]
    temperature : Tensor [...], K
        0 is the limit.

    Returns
    -------
    Tensor [...]
        With the broadcast leading dimensions of dos, n_electrons and temperature.

    Raises
    ------
    ValueError
        For energies that are not an increasing grid, a DOS that does not fit them, NaN, a negative temperature, and for
        fewer electrons than none or more than the DOS holds on the grid.

    References
    ----------
    Ellis et al. 2021, text after Eq. (A10).

    Examples
    --------
    A constant density of two states per eV between 0 and 10 eV is filled by 8 electrons up to 4 eV:

    >>> energies = np.linspace(0, 10, 101)
    >>> round(float(fermi_level(energies, np.full(101, 2.0), 8.0, 300)), 6)
    4.0
    """
    given = {"energies": energies, "dos": dos, "n_electrons": n_electrons, "temperature": temperature}
    if any(isinstance(value, torch.Tensor) for value in given.values()):
        return _fermi_level_of_tensors(**given)
    energies, dos, n_electrons, temperature = (to_array(name, value) for name, value in given.items())
    capacity = check_filling(energies, dos, n_electrons, temperature)
    capacity, n_electrons, temperature = np.broadcast_arrays(capacity, n_electrons, temperature)
    levels = _find_roots(energies, np.broadcast_to(dos, (*capacity.shape, len(energies))), n_electrons, temperature)
    return levels if levels.ndim else levels.item()


@numpy_or_torch
def _fermi_level_of_tensors(energies, dos, n_electrons, temperature):
    if energies.requires_grad:
        raise ValueError("energies: got a grid that requires gradients, need a fixed one; call energies.detach()")
    capacity = check_filling(energies, dos.detach(), n_electrons.detach(), temperature.detach())
    capacity, n_electrons, temperature = torch.broadcast_tensors(capacity, n_electrons, temperature)
    return _FermiLevel.apply(energies, dos.expand(*capacity.shape, -1), n_electrons, temperature)


def _find_roots(energies, dos, n_electrons, temperature):
    """Array [...] of Fermi levels of the arrays dos [..., S], n_electrons and temperature [...]."""
    rows = zip(dos.reshape(-1, len(energies)), n_electrons.ravel().tolist(), temperature.ravel().tolist())
    return np.array([filling.fermi_level(energies, row, n, units.KB * t) for row, n, t in rows]).reshape(dos.shape[:-1])


class _FermiLevel(torch.autograd.Function):
    """The root of N(μ) = n; its derivatives are differentiable functions of the root itself."""

    @staticmethod
    def forward(ctx, energies, dos, n_electrons, temperature):
        # one after the other on the host: a fraction of a millisecond each
        mu = energies.new_tensor(
            _find_roots(*(tensor.detach().cpu().numpy() for tensor in (energies, dos, n_electrons, temperature)))
        )
        ctx.save_for_backward(energies, dos, temperature, mu)
        return mu

    @staticmethod
    def backward(ctx, grad):
        energies, dos, temperature, mu = ctx.saved_tensors
        grad_electrons = grad * _per_window(energies, dos, mu, temperature)
        of_dos = of_temperature = None
        if ctx.needs_input_grad[1]:
            of_dos = -grad_electrons[..., None] * _hat_weights(_NUMBER, energies, mu, temperature)
        if ctx.needs_input_grad[3]:
            first = (_hat_weights(_SLOPE[1], energies, mu, temperature) * dos).sum(-1)
            of_temperature = -units.KB / _thermal_energy(temperature) * grad_electrons * first
        return None, of_dos, grad_electrons, of_temperature
