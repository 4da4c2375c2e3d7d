"""Hartree energy of densities whose potential is known, its symmetry, and its derivatives."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from ase_mlelec.physics import ewald, hartree
from ase_mlelec.units import COULOMB

CELL = np.array([[4.1, 0.3, -0.2], [-1.2, 3.7, 0.5], [0.4, 0.9, 5.3]])
VOLUME = np.linalg.det(CELL)
RNG = np.random.default_rng(3)
GRIDS = [(7, 9, 11), (8, 6, 10), (9, 8, 5)]


def points(shape, cell=CELL):
    return np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1) @ cell


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def rotation(seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("frequencies", [(1, 0, 0), (1, -2, 1), (2, 2, -2)])
def test_plane_wave(shape, frequencies):
    """v = 4π e² A/G² cos(G·r + φ) and U = π e² A² Ω/G² of n = n_0 + A cos(G·r + φ), whatever n_0."""
    vector = 2 * math.pi * np.linalg.inv(CELL) @ frequencies
    wave = np.cos(points(shape) @ vector + 0.7)
    potential = hartree.potential(0.4 + 0.1 * wave, CELL)
    np.testing.assert_allclose(potential, 4 * math.pi * COULOMB * 0.1 / (vector @ vector) * wave, atol=1e-14)
    exact = math.pi * COULOMB * 0.01 / (vector @ vector) * VOLUME
    assert hartree.energy(0.4 + 0.1 * wave, CELL) == pytest.approx(exact, rel=1e-13)


def test_wave_of_the_nyquist_frequency():
    """(-1)^i: the plane wave of half the grid frequency, whose length has no doubt about its sign."""
    wave = np.broadcast_to((-1.0) ** np.arange(6)[:, None, None], (6, 5, 4))
    vector = 2 * math.pi * np.linalg.inv(CELL) @ (3, 0, 0)
    exact = 4 * math.pi * COULOMB / (vector @ vector) * wave
    np.testing.assert_allclose(hartree.potential(wave, CELL), exact, rtol=1e-13)


def test_gaussian_charges_are_screened_point_charges():
    """Gaussians exp(-2α²r²) that do not overlap have the energy of point charges plus q²α/√π each and a share of the
    background, π/(2Ωα²) (Σq)²: in closed form from Ewald's formula, in a skewed cell and from another module."""
    alpha, charges, shape = 1.5, np.array([1.0, 2.5]), (30, 28, 38)
    positions = np.array([[0.31, 0.12, 0.4], [1.8, 2.2, 3.1]])
    images = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    density = 0
    for charge, atom in zip(charges, positions @ np.linalg.inv(CELL)):
        nearest = (points(shape, np.eye(3)) - atom + 0.5) % 1 - 0.5
        squares = (((nearest[:, :, :, None] + images) @ CELL) ** 2).sum(-1)
        density += charge * (2 * alpha**2 / math.pi) ** 1.5 * np.exp(-2 * alpha**2 * squares).sum(-1)
    # the tails of the Gaussians do overlap: by erfc(α d)/d for the few shortest distances
    separation = np.linalg.norm(positions[1] - positions[0] + images @ CELL, axis=1)
    tails = charges.prod() * sum(math.erfc(alpha * d) / d for d in separation)
    exact = ewald.energy(positions, charges, CELL) + COULOMB * (
        alpha / math.sqrt(math.pi) * (charges**2).sum() + math.pi / (2 * VOLUME * alpha**2) * charges.sum() ** 2 - tails
    )
    assert hartree.energy(density, CELL) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("shape", GRIDS)
def test_potential_is_the_derivative(shape):
    """v = dU/dn per volume of a grid point, for a density without any symmetry or smoothness."""
    density = leaf(RNG.uniform(0, 1, shape))
    (slope,) = torch.autograd.grad(hartree.energy(density, CELL), density)
    potential = hartree.potential(density, CELL).detach()
    torch.testing.assert_close(slope / (VOLUME / density.numel()), potential, rtol=1e-12, atol=1e-12)
    assert abs(potential.mean()) < 1e-14


def test_odd_grid_is_the_sum_over_plane_waves():
    """The textbook sum of |n_G|²/G² over the full spectrum, noise included."""
    density = RNG.uniform(0, 1, (5, 7, 3))
    frequencies = np.stack(np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in density.shape), indexing="ij"), -1)
    squares = ((frequencies @ (2 * math.pi * np.linalg.inv(CELL).T)) ** 2).sum(-1).ravel()[1:]
    components = abs(np.fft.fftn(density, norm="forward")).ravel()[1:] ** 2
    exact = 2 * math.pi * COULOMB * VOLUME * np.sum(components / squares)
    assert hartree.energy(density, CELL) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("shape", GRIDS)
def test_symmetry(shape):
    """Translation by grid vectors, inversion, rotation and a left-handed cell, all with noise."""
    density = RNG.uniform(0, 1, shape)
    energy = hartree.energy(density, CELL)
    inverted = np.roll(density[::-1, ::-1, ::-1], 1, (0, 1, 2))
    for same in (np.roll(density, (1, -2, 3), (0, 1, 2)), inverted):
        assert hartree.energy(same, CELL) == pytest.approx(energy, rel=1e-13)
    assert hartree.energy(density, CELL @ rotation()) == pytest.approx(energy, rel=1e-13)
    assert hartree.energy(density.swapaxes(0, 2), CELL[::-1]) == pytest.approx(energy, rel=1e-13)


def test_supercell():
    density = RNG.uniform(0, 1, (7, 5, 9))
    double = hartree.energy(np.tile(density, (2, 2, 1)), CELL * [[2], [2], [1]])
    assert double == pytest.approx(4 * hartree.energy(density, CELL), rel=1e-13)


def test_virial():
    """U goes as 1/L with the electrons kept, and the derivatives know: Σ h dU/dh = 5U, Σ n dU/dn = 2U."""
    density, cell = leaf(RNG.uniform(0, 1, (6, 5, 4))), leaf(CELL)
    energy = hartree.energy(density, cell)
    of_density, of_cell = torch.autograd.grad(energy, (density, cell))
    assert (of_cell * cell).sum().item() == pytest.approx(5 * energy.item(), rel=1e-13)
    assert (of_density * density).sum().item() == pytest.approx(2 * energy.item(), rel=1e-13)
    assert hartree.energy(density.detach() / 8, 2 * cell.detach()) == pytest.approx(energy.item() / 2, rel=1e-13)


def test_rotating_the_cell_costs_nothing():
    """The derivative with respect to strain is symmetric."""
    cell = leaf(CELL)
    (slope,) = torch.autograd.grad(hartree.energy(RNG.uniform(0, 1, (6, 5, 4)), cell), cell)
    strain = cell.detach().T @ slope
    torch.testing.assert_close(strain, strain.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 2, 3)])
def test_gradients(shape):
    inputs = leaf(RNG.uniform(0, 1, shape)), leaf(CELL)
    assert gradcheck(hartree.energy, inputs)
    assert gradcheck(hartree.potential, inputs, fast_mode=True)


@pytest.mark.parametrize(
    "density, cell, message",
    [
        (np.ones((2, 2)), CELL, r"density: got shape \[2, 2\], need \[G1, G2, G3\]"),
        (np.ones((2, 0, 2)), CELL, r"density: got shape \[2, 0, 2\]"),
        (np.full((2, 2, 2), math.nan), CELL, "density: got NaN"),
        (np.ones((2, 2, 2)), np.zeros((3, 3)), "cell: got vectors .* of no volume"),
    ],
)
def test_errors(density, cell, message):
    for function in (hartree.energy, hartree.potential):
        with pytest.raises(ValueError, match=message):
            function(density, cell)


@pytest.mark.parametrize("shape", [(6, 5, 4), (5, 8, 7), (1, 3, 6)])
def test_large_grids_are_summed_in_slabs(shape, monkeypatch):
    """With no more memory than the half spectrum; skewed cells, even and odd numbers of points."""
    rng = np.random.default_rng(0)
    density, cell = rng.uniform(0, 1, shape), np.diag([3.0, 3.5, 4.0]) + rng.uniform(-0.5, 0.5, (3, 3))
    wanted = hartree.energy(density, cell)
    calls, former = [], hartree._sum_in_slabs
    monkeypatch.setattr(hartree, "_sum_in_slabs", lambda *given: calls.append(1) or former(*given))
    for size in (1, 2 * shape[0] * (shape[2] // 2 + 1)):
        monkeypatch.setattr(hartree, "SLAB", size)
        assert hartree.energy(density, cell) == pytest.approx(wanted, rel=1e-13)
    assert len(calls) == 2
