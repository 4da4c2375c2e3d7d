"""Electrostatic energy of a periodic density with itself, by fast Fourier transform."""

import math

import torch
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics import grid
from ase_mlelec.physics.arrays import numpy_or_torch

SLAB = 2**22  # elements of the half spectrum that are weighted at a time, where no derivative is asked for


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
    _check(density, cell)
    return torch.fft.irfftn(_kernel(density, cell) * torch.fft.rfftn(density), s=density.shape)


def _check(density, cell):
    grid.check_cell(cell)
    grid.check_grid_values("density", density)


def _kernel(density, cell, second=slice(None)):
    """e² 4π/G² on the half spectrum, 0 at G = 0; eV Å."""
    squares = grid.squared_wave_vectors(density.shape, cell, second=second)
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
    _check(density, cell)
    if density.numel() > SLAB and not (torch.is_grad_enabled() and (density.requires_grad or cell.requires_grad)):
        return _sum_in_slabs(density, cell) * grid.volume(cell)
    spectrum = torch.fft.rfftn(density, norm="forward")
    return (_kernel(density, cell) * _intensity(spectrum, density.shape[2])).sum() * grid.volume(cell)


def _intensity(spectrum, n):
    """``|n_G|²`` of a half spectrum times half the number of wave vectors that each stands for."""
    intensity = torch.view_as_real(spectrum).square().sum(-1)
    # half of the wave vectors: n_-G is the complex conjugate of n_G; those without a partner count once
    halves = torch.ones(intensity.shape[2], dtype=torch.float64, device=spectrum.device)
    halves[0] = 0.5
    if n % 2 == 0:
        halves[-1] = 0.5
    return intensity * halves


def _sum_in_slabs(density, cell):
    """Sum of kernel and intensity with no more memory than density and half spectrum."""
    n1, n2, n3 = density.shape
    spectrum = density.new_empty(n1, n2, n3 // 2 + 1, dtype=torch.complex128)
    for plane, values in zip(spectrum, density):
        plane.copy_(torch.fft.rfft2(values, norm="forward"))
    total, thickness = density.new_zeros(()), max(1, SLAB // (n1 * spectrum.shape[2]))
    for start in range(0, n2, thickness):
        part = slice(start, start + thickness)
        slab = torch.fft.fft(spectrum[:, part], dim=0, norm="forward")
        total += (_kernel(density, cell, part) * _intensity(slab, n3)).sum()
    return total
