"""Exchange and correlation without spin: local density (PZ81, PW92) and gradient-corrected (PBE, PBEsol).

A functional is an energy per volume e(n, σ), σ = (∇n)², written here in Hartree atomic units; everything else, such as
the potential, is its derivative. Where the density is small the formulas are singular, and a density from a Fourier
transform or a model may dip below zero: e is continued as an odd function of n, and is 0 where n is smaller in size
than 1e-10 bohr^-3; its gradient correction is 0 where n is smaller than 1e-6 or σ than 1e-10. Quantum ESPRESSO does
the same.
"""

import difflib
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics import grid
from ase_mlelec.physics.arrays import check_finite, numpy_or_torch, sum_over_chunks

_SMALLEST_DENSITY = 1e-10  # bohr^-3
_SMALLEST_DENSITY_OF_GRADIENT = 1e-6  # bohr^-3
_SMALLEST_SQUARED_GRADIENT = 1e-10  # bohr^-8

_CHUNK = 2**16  # grid points in flight

_PW92 = (0.031091, 0.21370, 7.5957, 3.5876, 1.6382, 0.49294)  # A, α1, β1 to β4 as printed; A is (1 - ln 2)/π²
_PZ81_DENSE = (0.0311, -0.048, 0.0020, -0.0116)  # A, B, C, D
_PZ81_DILUTE = (-0.1423, 1.0529, 0.3334)  # γ, β1, β2
_KAPPA = 0.804
_GAMMA = (1 - math.log(2)) / math.pi**2
_BETA_PBE = 0.06672455060314922


def _exchange(n):
    """Energy per electron of the uniform electron gas. Source: Dirac 1930."""
    return -0.75 * (3 / math.pi * n) ** (1 / 3)


def _pz81(n):
    """Correlation energy per electron. Source: Perdew and Zunger, Phys. Rev. B 23, 5048 (1981), Eqs. (C3), (C5)."""
    rs = (3 / (4 * math.pi * n)) ** (1 / 3)
    a, b, c, d = _PZ81_DENSE
    gamma, beta1, beta2 = _PZ81_DILUTE
    log = torch.log(rs)
    return torch.where(rs < 1, a * log + b + c * rs * log + d * rs, gamma / (1 + beta1 * rs.sqrt() + beta2 * rs))


def _pw92(n):
    """Correlation energy per electron. Source: Perdew and Wang, Phys. Rev. B 45, 13244 (1992), Eq. (10)."""
    root = (3 / (4 * math.pi * n)) ** (1 / 6)
    a, alpha1, beta1, beta2, beta3, beta4 = _PW92
    series = root * (beta1 + root * (beta2 + root * (beta3 + root * beta4)))
    return -2 * a * (1 + alpha1 * root**2) * torch.log1p(1 / (2 * a * series))


def _gradient_correction(n, sigma, mu, beta):
    """What PBE and its relatives add to the energy per volume of exchange and PW92.

    References
    ----------
    Perdew, Burke and Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996), Eqs. (7), (8), (14).
    """
    k_fermi = (3 * math.pi**2 * n) ** (1 / 3)
    s2 = sigma / (2 * k_fermi * n) ** 2
    exchange = _exchange(n) * mu * s2 / (1 + mu * s2 / _KAPPA)
    t2 = math.pi * sigma / (16 * k_fermi * n**2)
    at2 = beta / _GAMMA / torch.expm1(-_pw92(n) / _GAMMA) * t2
    correlation = _GAMMA * torch.log1p(beta / _GAMMA * t2 * (1 + at2) / (1 + at2 + at2**2))
    return n * (exchange + correlation)


class _Functional(NamedTuple):
    correlation: Callable  # energy per electron of the uniform electron gas
    gradient: tuple | None = None  # (μ, β) of the gradient correction


FUNCTIONALS = {
    "lda_pz": _Functional(_pz81),
    "lda_pw": _Functional(_pw92),
    "pbe": _Functional(_pw92, (_BETA_PBE * math.pi**2 / 3, _BETA_PBE)),
    "pbesol": _Functional(_pw92, (10 / 81, 0.046)),  # Perdew et al., Phys. Rev. Lett. 100, 136406 (2008)
}


def check_name(xc: str) -> None:
    """Raise ValueError unless xc is the name of a functional."""
    if xc not in FUNCTIONALS:
        near = difflib.get_close_matches(str(xc).lower().replace("-", "_"), FUNCTIONALS, n=1)
        raise ValueError(
            f"xc: got {xc!r}, need one of {', '.join(FUNCTIONALS)}"
            + (f"; did you mean {near[0]!r}?" if near else "; another functional cannot be evaluated")
        )


def _energy_per_volume(n, sigma, functional):
    """e(n, σ) in atomic units; sigma is None for a local functional."""
    dense = n.abs() > _SMALLEST_DENSITY
    size = torch.where(dense, n.abs(), 1.0)
    value = torch.where(dense, size * (_exchange(size) + functional.correlation(size)), 0.0)
    if functional.gradient:
        varies = (n.abs() > _SMALLEST_DENSITY_OF_GRADIENT) & (sigma > _SMALLEST_SQUARED_GRADIENT)
        size = torch.where(varies, size, 1.0)
        correction = _gradient_correction(size, torch.where(varies, sigma, 1.0), *functional.gradient)
        value = value + torch.where(varies, correction, 0.0)
    return torch.where(n < 0, -value, value)


@numpy_or_torch
def energy_density(density: Tensor, squared_gradient: Tensor | None = None, xc: str = "lda_pz") -> Tensor:
    """Exchange-correlation energy per volume, e(n, σ), σ = (∇n)².

    Parameters
    ----------
    density : Tensor [...], electrons/Å^3
    squared_gradient : Tensor [...]
        electrons²/Å^8; the local functionals do not look at it.
    xc : str
        "lda_pz", "lda_pw", "pbe" or "pbesol".

    Returns
    -------
    Tensor [...], eV/Å^3
        Differentiable any number of times.

    Raises
    ------
    ValueError
        For NaN, an unknown functional, and a gradient that is missing or of another shape.
    """
    check_name(xc)
    check_finite(density=density)
    functional = FUNCTIONALS[xc]
    sigma = None
    if functional.gradient:
        if squared_gradient is None or squared_gradient.shape != density.shape:
            got = "None" if squared_gradient is None else f"shape {list(squared_gradient.shape)}"
            raise ValueError(
                f"squared_gradient: got {got}, need {list(density.shape)} to match density; {xc} depends on it"
            )
        check_finite(squared_gradient=squared_gradient)
        sigma = squared_gradient * units.BOHR**8
    return _energy_per_volume(density * units.BOHR**3, sigma, functional) * (units.HARTREE / units.BOHR**3)


@numpy_or_torch
def energies(density: Tensor, cell: Tensor, xc: str = "lda_pz", core_density: Tensor | None = None) -> tuple:
    r"""Exchange-correlation energy and the integral of the potential over the valence density.

    .. math::

        E_\mathrm{xc} = \int e(n + n_\mathrm{core}), \qquad V_\mathrm{xc} = \int n \, v_\mathrm{xc}
        = \int \Bigl[ n \frac{\partial e}{\partial n} + 2 \frac{\partial e}{\partial \sigma}
        \nabla n \cdot \nabla (n + n_\mathrm{core}) \Bigr], \qquad
        v_\mathrm{xc} = \frac{\delta E_\mathrm{xc}}{\delta n}

    Parameters
    ----------
    density : Tensor [G1, G2, G3], electrons/Å^3
        Valence.
    cell : Tensor [3, 3], Å
    xc : str
        "lda_pz", "lda_pw", "pbe" or "pbesol".
    core_density : Tensor [G1, G2, G3], electrons/Å^3
        Of a pseudopotential with core correction.

    Returns
    -------
    E_xc, V_xc : Tensors [], eV
        Differentiable any number of times.

    Raises
    ------
    ValueError
        For an unknown functional, a density that is not a grid, a core density of another shape, a cell of no volume,
        and NaN.

    References
    ----------
    Ellis et al. 2021, E_xc and V_xc in Eq. (9).
    """
    check_name(xc)
    grid.check_cell(cell)
    grid.check_grid_values("density", density)
    total = density
    if core_density is not None:
        if core_density.shape != density.shape:
            raise ValueError(
                f"core_density: got shape {list(core_density.shape)}, need {list(density.shape)} to match "
                "the density; evaluate both on one grid"
            )
        check_finite(core_density=core_density)
        total = density + core_density
    fields = [density, total]
    if FUNCTIONALS[xc].gradient:
        fields += grid.phase_derivatives(total)
        if core_density is not None:
            fields += grid.phase_derivatives(density)
    metric = grid.reciprocal_cell(cell) @ grid.reciprocal_cell(cell).T
    sums = sum_over_chunks(
        functools.partial(_sums, xc), _CHUNK, *(field.flatten() for field in fields), shared=(metric,)
    )
    return tuple(sums * (grid.volume(cell) / density.numel()))


def _sums(xc, metric, density, total, *slopes):
    """Sums of e and of n v_xc by parts over some grid points, in the autograd graph only where the fields are.

    Parameters
    ----------
    slopes
        phase_derivatives of the total density and, where it differs, of the valence density; none without gradient.
    """
    inputs, product = [total], None
    if slopes:
        inputs.append(_product(metric, slopes[:3], slopes[:3]))
        product = _product(metric, slopes[:3], slopes[-3:])
    wanted = torch.is_grad_enabled() and any(item.requires_grad for item in inputs)
    with torch.enable_grad():
        # views, so that the derivative with respect to the density does not go through its gradient
        inputs = [item.view_as(item) if item.requires_grad else item.detach().requires_grad_() for item in inputs]
        value = energy_density(*inputs, xc=xc)
        slopes = torch.autograd.grad(value.sum(), inputs, create_graph=wanted)
    potential = density * slopes[0]
    if product is not None:
        potential = potential + 2 * product * slopes[1]
    return torch.stack([(value if wanted else value.detach()).sum(), potential.sum()])


def _product(metric, first, second):
    """Product of two gradients, Tensor [P], from three Tensors [P] each along the cell vectors."""
    return ((metric @ torch.stack(first)) * torch.stack(second)).sum(0)
