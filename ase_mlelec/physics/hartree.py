"""Electrostatic energy of a periodic density with itself, by fast Fourier transform."""

import math

import torch
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics import grid
from ase_mlelec.physics.arrays import numpy_or_torch


@numpy_or_torch
def potential(density: Tensor, cell: Tensor) -> Tensor:
    """Hartree potential v_H = e² 4π n_G/G² of a density in a neutralizing background, with v_H = 0 at G = 0.

    It solves the Poisson equation of the trigonometric interpolation of the density; see grid for what that means at
    the Nyquist frequency.

    Parameters
    ----------
    density : Tensor [G1, G2, G3], electrons/Å^3
    cell : Tensor [3, 3], Å

    Returns
    -------
    Tensor [G1, G2, G3], eV
        The energy of an electron.

    Raises
    ------
    ValueError
        For a density that is not a grid, a cell of no volume, and NaN.
    """
    return torch.fft.irfftn(_kernel(density, cell) * torch.fft.rfftn(density), s=density.shape)


def _kernel(density, cell):
    """e² 4π/G² on the half spectrum, 0 at G = 0; eV Å."""
    grid.check_cell(cell)
    grid.check_grid_values("density", density)
    squares = grid.squared_wave_vectors(density.shape, cell)
    return torch.where(squares > 0, 4 * math.pi * units.COULOMB / torch.where(squares > 0, squares, 1.0), 0.0)


@numpy_or_torch
def energy(density: Tensor, cell: Tensor) -> Tensor:
    """Hartree energy U = 1/2 ∫ n v_H of a density in a neutralizing background, Ω/2 Σ_G e² 4π/G² ``|n_G|²``.

    Parameters
    ----------
    density : Tensor [G1, G2, G3], electrons/Å^3
    cell : Tensor [3, 3], Å

    Returns
    -------
    Tensor [], eV
        Differentiable with respect to the density and the cell (at fixed density values).

    Raises
    ------
    ValueError
        As potential does.

    References
    ----------
    Ellis et al. 2021, U in Eq. (9).
    """
    kernel = _kernel(density, cell)
    spectrum = torch.view_as_real(torch.fft.rfftn(density, norm="forward"))
    intensity = spectrum.square().sum(-1)
    # half of the wave vectors: n_-G is the complex conjugate of n_G; those without a partner count once
    halves = torch.ones(intensity.shape[2], dtype=torch.float64, device=density.device)
    halves[0] = 0.5
    if density.shape[2] % 2 == 0:
        halves[-1] = 0.5
    return (kernel * intensity * halves).sum() * grid.volume(cell)
