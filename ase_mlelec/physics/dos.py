"""Electronic properties that follow from a density of states on an energy grid, taken as piecewise linear.

DOS in states/eV including spin degeneracy. Everything is differentiable with respect to the DOS.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics import fermi
from ase_mlelec.physics.arrays import numpy_or_torch
from ase_mlelec.physics.dos_checks import check_dos


@numpy_or_torch
def cumulative(energies: Tensor, dos: Tensor) -> Tensor:
    """Number of states below each grid point, ∫ D dε from the first one: the exact integral of a piecewise-linear DOS.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV

    Returns
    -------
    Tensor [..., S], states
        The first is 0.

    Raises
    ------
    ValueError
        For a DOS that does not fit an increasing grid.

    Examples
    --------
    >>> cumulative(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 2.0])).tolist()
    [0.0, 1.0, 3.0]
    """
    check_dos(energies, dos)
    return torch.nn.functional.pad(torch.cumulative_trapezoid(dos, energies), (1, 0))


@numpy_or_torch
def moments(energies: Tensor, dos: Tensor, order: Tensor) -> Tensor:
    """Moment ∫ ε^n D dε over the whole grid, exact for a piecewise-linear DOS.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV
    order : int
        0 to 18.

    Returns
    -------
    Tensor [...], states eV^n
        Divide by order 0 for the mean of ε^n.

    Raises
    ------
    ValueError
        For another order and for a DOS that does not fit an increasing grid.

    Examples
    --------
    The mean energy of a constant density between 0 and 2 eV:

    >>> energies, dos = np.linspace(0, 2, 5), np.ones(5)
    >>> round(float(moments(energies, dos, 1) / moments(energies, dos, 0)), 12)
    1.0
    """
    check_dos(energies, dos)
    if order not in range(19):
        raise ValueError(f"order: got {order.item():g}, need an integer from 0 to 18")
    node, weight = (energies.new_tensor(v) for v in np.polynomial.legendre.leggauss(10))  # exact to ε^19
    node, width = 0.5 + 0.5 * node, energies.diff()[:, None]
    value = dos[..., :-1, None] * (1 - node) + dos[..., 1:, None] * node
    return (0.5 * weight * width * value * (energies[:-1, None] + width * node) ** order).sum((-1, -2))


@numpy_or_torch
def band_gap(
    energies: Tensor, dos: Tensor, fermi_level: Tensor, threshold: Any = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """Gap around the Fermi level: the interval in which the DOS stays below a threshold.

    The edges are where the linearly interpolated DOS crosses the threshold. A DOS at or above it at the Fermi level is
    a metal: gap 0 and both edges at the Fermi level. The default threshold is meant for a DOS per atom; divide a total
    DOS by the number of atoms, or multiply the threshold. Broadening fills the gap from both sides: with a Gaussian
    exp(-(x/s)²) expect it to come out too small by about 2 to 4 s.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV per atom
    fermi_level : Tensor [...], eV
    threshold : float, states/eV
        In the units of dos.

    Returns
    -------
    gap, vbm, cbm : Tensors [...], eV

    Raises
    ------
    ValueError
        For a Fermi level outside the grid, a gap that reaches the end of the grid, a threshold that is not positive,
        and a DOS that does not fit an increasing grid.
    """
    check_dos(energies, dos)
    _check_inside(energies, "fermi_level", fermi_level)
    if not (threshold > 0).all():
        raise ValueError(f"threshold: got {threshold.min().item():g} states/eV, need more than 0; a DOS is seldom 0")
    fermi_level, _ = torch.broadcast_tensors(fermi_level, dos[..., 0])
    dos = dos.expand(*fermi_level.shape, -1)
    metal = _interpolate(energies, dos, fermi_level[..., None])[..., 0] >= threshold
    index = torch.arange(len(energies), device=energies.device)
    filled = dos >= threshold
    last = torch.where(filled & (energies <= fermi_level[..., None]), index, -1).amax(-1)
    first = torch.where(filled & (energies > fermi_level[..., None]), index, len(energies)).amin(-1)
    if (~metal & ((last < 0) | (first == len(energies)))).any():
        raise ValueError(
            f"dos: got a gap that reaches an end of the grid, {energies[0]:g} to {energies[-1]:g} eV, "
            "need states on both sides of the Fermi level; widen the grid or lower the threshold"
        )
    vbm = torch.where(metal, fermi_level, _crossing(energies, dos, last, threshold, metal))
    cbm = torch.where(metal, fermi_level, _crossing(energies, dos, first - 1, threshold, metal))
    return cbm - vbm, vbm, cbm


def _crossing(energies, dos, segment, threshold, metal):
    """Energy at which the DOS passes the threshold in one segment [...]; in a metal any number that is finite."""
    segment = segment.clamp(0, len(energies) - 2)
    start, end = (dos.gather(-1, at[..., None])[..., 0] for at in (segment, segment + 1))
    fraction = (threshold - start) / torch.where(metal, 1.0, end - start)
    return energies[segment] + fraction * (energies[segment + 1] - energies[segment])


@numpy_or_torch
def band_energy(
    energies: Tensor, dos: Tensor, n_electrons: Tensor, temperature: Tensor, *, mu: Tensor | None = None
) -> Tensor:
    """Band energy E = ∫ ε D f dε at the Fermi level of n_electrons.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV
    n_electrons : Tensor [...]
    temperature : Tensor [...], K
    mu : Tensor [...], eV
        The Fermi level where it is known already; n_electrons is not looked at then.

    Returns
    -------
    Tensor [...], eV
        On the scale of energies (absolute, not relative to the Fermi level).

    Raises
    ------
    ValueError
        As fermi.fermi_level does.

    References
    ----------
    Ellis et al. 2021, Eqs. (17), (A10).
    """
    mu = _level(energies, dos, n_electrons, temperature, mu)
    return (fermi.integration_weights(energies, mu, temperature)[1] * dos).sum(-1)


@numpy_or_torch
def band_energy_and_slopes(energies: Tensor, dos: Tensor, mu: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    r"""Band energy and its derivatives by the values of the DOS, at a fixed number of electrons.

    With the weights w and the moments M_n of the thermal window, see ``heat_capacity``,

    .. math::

        \frac{dE}{dD} = w_E - (\mu + kT M_1/M_0) \, w_N

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV
    mu : Tensor [...], eV
        The Fermi level of ``dos``.
    temperature : Tensor [...], K

    Returns
    -------
    energy : Tensor [...], eV
    slopes : Tensor [..., S], eV²

    Raises
    ------
    ValueError
        As fermi.level_slopes does.

    References
    ----------
    Derivative of Ellis et al. 2021, Eq. (A5) at constant N.
    """
    check_dos(energies, dos)
    number, energy, _ = fermi.integration_weights(energies, mu, temperature)
    m0, m1, _ = ((weights * dos).sum(-1) for weights in fermi.slope_weights(energies, mu, temperature))
    height = mu + units.KB * temperature * m1 / torch.where(m0 == 0, 1.0, m0)
    return (energy * dos).sum(-1), energy - height[..., None] * number


@numpy_or_torch
def entropy(
    energies: Tensor, dos: Tensor, n_electrons: Tensor, temperature: Tensor, *, mu: Tensor | None = None
) -> Tensor:
    """Entropy of the electrons, S = -k ∫ D [f ln f + (1-f) ln(1-f)] dε >= 0, at the Fermi level of n_electrons.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV
    n_electrons : Tensor [...]
    temperature : Tensor [...], K
    mu : Tensor [...], eV
        The Fermi level where it is known already.

    Returns
    -------
    Tensor [...], eV/K

    Raises
    ------
    ValueError
        As fermi.fermi_level does.

    References
    ----------
    Ellis et al. 2021, Eqs. (A7), (A8), (A10).
    """
    mu = _level(energies, dos, n_electrons, temperature, mu)
    return (fermi.entropy_weights(energies, mu, temperature) * dos).sum(-1)


@numpy_or_torch
def heat_capacity(
    energies: Tensor, dos: Tensor, n_electrons: Tensor, temperature: Tensor, *, mu: Tensor | None = None
) -> Tensor:
    r"""Heat capacity of the electrons at constant number and constant DOS, C = dE/dT = T dS/dT.

    With the moments M_n = ∫ D x^n f (1-f) dε of the thermal window, x = (ε - μ)/kT, and dμ/dT = -k M_1/M_0,

    .. math::

        C = k (M_2 - M_1^2/M_0)

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV
    n_electrons : Tensor [...]
    temperature : Tensor [...], K
    mu : Tensor [...], eV
        The Fermi level where it is known already.

    Returns
    -------
    Tensor [...], eV/K
        0 where the window holds no states.

    Raises
    ------
    ValueError
        As fermi.fermi_level does.

    References
    ----------
    Derivative of Ellis et al. 2021, Eqs. (A5), (A6) at constant N.
    """
    mu = _level(energies, dos, n_electrons, temperature, mu)
    m0, m1, m2 = ((weights * dos).sum(-1) for weights in fermi.slope_weights(energies, mu, temperature))
    return units.KB * (m2 - m1**2 / torch.where(m0 == 0, 1.0, m0))


def _level(energies, dos, n_electrons, temperature, mu):
    """The Fermi level, unless it is given."""
    if mu is None:
        return fermi.fermi_level(energies, dos, n_electrons, temperature)
    check_dos(energies, dos)
    return mu


@numpy_or_torch
def order_parameter(energies: Tensor, ados: Tensor, fermi_level: Tensor, offsets: Any = (0, -5, -8)) -> Tensor:
    """Order parameter of each atom, Q_i = Σ_k g_i(E_F + offset_k): large in a liquid, small in the diamond phase of Si.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    ados : Tensor [N, S], states/eV
        Contributions of the atoms to the DOS.
    fermi_level : float, eV
    offsets : sequence of float, eV
        The minima of the DOS of crystalline silicon by default.

    Returns
    -------
    Tensor [N], states/eV

    Raises
    ------
    ValueError
        When an energy lies outside the grid, and for a DOS that does not fit an increasing grid.

    References
    ----------
    Zeng et al. 2022, Sec. VI.
    """
    check_dos(energies, ados)
    points = fermi_level[..., None] + offsets
    _check_inside(energies, "fermi_level + offsets", points)
    return _interpolate(energies, ados, points.expand(*ados.shape[:-1], -1)).sum(-1)


def _interpolate(energies, dos, points):
    """DOS [..., K] at points [..., K] by linear interpolation of dos [..., S]."""
    segment = (torch.searchsorted(energies, points.contiguous(), right=True) - 1).clamp(0, len(energies) - 2)
    fraction = (points - energies[segment]) / (energies[segment + 1] - energies[segment])
    start, end = dos.gather(-1, segment), dos.gather(-1, segment + 1)
    return start + fraction * (end - start)


def _check_inside(energies, name, points):
    if not ((points >= energies[0]) & (points <= energies[-1])).all():
        raise ValueError(
            f"{name}: got {points.min().item():g} to {points.max().item():g} eV, need values on the grid, "
            f"{energies[0]:g} to {energies[-1]:g} eV; widen it, or check the reference of the energies"
        )
