"""Free energy of independent electrons in a density of states, and its change with their temperature.

The density of states is linear between the points of a grid, in states/eV including spin degeneracy. Everything is
differentiable with respect to it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics import fermi
from ase_mlelec.physics.arrays import numpy_or_torch
from ase_mlelec.physics.dos_checks import check_dos
from ase_mlelec.physics.polylog import polylog


@numpy_or_torch
def electronic_free_energy(
    energies: Tensor, dos: Tensor, n_electrons: Tensor, temperature: Tensor, *, width: Any = 0.0
) -> Tensor:
    r"""Free energy E - TS of electrons in a density of states, at the Fermi level of n_electrons.

    .. math::

        F = \int ε D f \, dε + kT \int D \, [f \ln f + (1 - f) \ln(1 - f)] \, dε
            + \Bigl(\frac{s^2}{4} + \frac{h^2}{12}\Bigr) \int D \Bigl(-\frac{\partial f}{\partial ε}\Bigr) dε

    The last term is zero with ``width`` 0. It corrects, to first order, for the Gaussians exp(-(x/s)²) that stand for
    levels, whose variance is s²/2, and for the linear interpolation between points of distance h, which adds h²/6:
    a convolution with a narrow function of variance v changes F by v/2 times the second derivative of -kT ln(1 + e^-x).

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [..., S], states/eV
    n_electrons : Tensor [...]
    temperature : Tensor [...], K
    width : float, eV
        Width s of the Gaussians in ``dos``; 0 for a density of states that is meant as it is.

    Returns
    -------
    Tensor [...], eV
        On the scale of energies (absolute, not relative to the Fermi level).

    Raises
    ------
    ValueError
        As fermi.fermi_level does, and for a negative width.

    References
    ----------
    Ellis et al. 2021, Eqs. (A4)-(A10). Correction: second-order Taylor expansion in the width.

    Examples
    --------
    A level at -1 eV that holds two electrons of three at 3,000 K, as a Gaussian of width 0.1 eV; exactly it is

    >>> import numpy as np
    >>> from ase_mlelec.units import KB
    >>> exact = -2 + KB * 3000 * 3 * (2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    >>> energies = np.linspace(-3, 1, 401)
    >>> dos = 3 * np.exp(-(((energies + 1) / 0.1) ** 2)) / (0.1 * np.sqrt(np.pi))
    >>> plain, corrected = (electronic_free_energy(energies, dos, 2, 3000, width=width) for width in (0, 0.1))
    >>> print(f"{plain - exact:.4f} {corrected - exact:.4f}")
    -0.0064 -0.0001
    """
    if not (width >= 0).all():
        raise ValueError(f"width: got {width.min().item():g} eV, need 0 or more; see dos_width_eV in the metadata")
    check_dos(energies, dos)
    mu = fermi.fermi_level(energies, dos, n_electrons, temperature)
    _, band, entropy = fermi.integration_weights(energies, mu, temperature)
    free = ((band + entropy) * dos).sum(-1)
    if not (width > 0).any():
        return free
    spacing = (energies[-1] - energies[0]) / (len(energies) - 1)
    kt = (units.KB * temperature).clamp(min=fermi.COLDEST_KT)
    at_level = (fermi.slope_weights(energies, mu, temperature)[0] * dos).sum(-1) / kt
    return free + (width**2 / 4 + spacing**2 / 12) * at_level


@numpy_or_torch
def beyond_grid(energies: Tensor, dos: Tensor, mu: Tensor, temperature: Tensor, end: Tensor) -> Tensor:
    """Size of the free energy of the states above the energy ``end``, which a density of states lacks.

    Above ``end`` as many states per eV are assumed as there are on average between the Fermi level and ``end``, D:
    with x = (end - μ)/kT the energy is -D (kT)² Li_2(-e^-x).

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [S], states/eV
    mu : float, eV
        Fermi level.
    temperature : float, K
    end : float, eV
        Last energy up to which states are known.

    Returns
    -------
    float, eV
        Zero or more; infinite where the Fermi level is above ``end``.
    """
    check_dos(energies, dos)
    inside = (energies >= mu) & (energies <= end)
    if not inside.any():
        return dos.new_tensor(math.inf)
    kt = units.KB * temperature
    return -dos[inside].mean().clamp(min=0) * kt**2 * polylog(2, -(end - mu) / kt.clamp(min=fermi.COLDEST_KT))


@numpy_or_torch
def electronic_energy(
    energies: Tensor, dos: Tensor, n_electrons: Tensor, temperature: Tensor, *, width: Any = 0.0
) -> tuple[Tensor, Tensor]:
    """Internal energy F - T dF/dT and entropy -dF/dT of electronic_free_energy; arguments as there.

    Returns
    -------
    energy, entropy : Tensors [...], eV and eV/K
        Without derivatives.

    Raises
    ------
    ValueError
        As electronic_free_energy does.
    """
    with torch.enable_grad():
        hot = temperature.detach().clone().requires_grad_(True)
        free = electronic_free_energy(energies, dos.detach(), n_electrons.detach(), hot, width=width)
        (slope,) = torch.autograd.grad(free.sum(), hot)
    return free.detach() - temperature * slope, -slope
