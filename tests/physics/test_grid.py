"""Fourier components on a grid: derivatives of plane waves, structure factors, and atoms placed on a grid."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from ase_mlelec.physics import arrays, grid
from ase_mlelec.units import BOHR, HARTREE

CELL = np.array([[4.1, 0.3, -0.2], [-1.2, 3.7, 0.5], [0.4, 0.9, 5.3]])


def points(shape, cell=CELL):
    """Cartesian coordinates of the points, [G1, G2, G3, 3]."""
    return np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1) @ cell


def tensor(values, requires_grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


@pytest.mark.parametrize("shape", [(7, 5, 9), (6, 8, 10), (8, 5, 6)])
@pytest.mark.parametrize("frequencies", [(1, -2, 1), (2, 2, 0), (0, -1, 2), (-2, 0, -2), (0, 0, 0)])
def test_plane_waves(shape, frequencies):
    """Gradient and |G|² of sin(G·r + 0.3), a frequency that every one of the grids resolves, in a skewed cell."""
    vector = 2 * math.pi * np.linalg.inv(CELL) @ frequencies
    phase = points(shape) @ vector + 0.3
    gradient = grid.gradient(tensor(np.sin(phase)), tensor(CELL))
    np.testing.assert_allclose(gradient, np.moveaxis(np.cos(phase)[..., None] * vector, -1, 0), atol=1e-13)
    squares = grid.squared_wave_vectors(shape, tensor(CELL))
    laplacian = torch.fft.irfftn(-squares * torch.fft.rfftn(tensor(np.sin(phase))), s=shape)
    np.testing.assert_allclose(laplacian, -vector @ vector * np.sin(phase), atol=1e-12)


def test_nyquist_frequency_has_no_sign():
    """Of (-1)^i times a plane wave, the first derivative along i vanishes, and so does the mixed second one."""
    shape = (6, 5, 8)
    other = 2 * math.pi * np.linalg.inv(CELL) @ (0, 1, 0)
    phase = points(shape) @ other
    wave = np.cos(phase) * (-1.0) ** np.arange(6)[:, None, None]
    gradient = grid.gradient(tensor(wave), tensor(CELL))
    expected = -np.sin(phase) * (-1.0) ** np.arange(6)[:, None, None]
    np.testing.assert_allclose(gradient, np.moveaxis(expected[..., None] * other, -1, 0), atol=1e-13)
    reciprocal = 2 * math.pi * np.linalg.inv(CELL).T
    squares = grid.squared_wave_vectors(shape, tensor(CELL))
    np.testing.assert_allclose(squares[3, [1, 4], 0], [9 * reciprocal[0] @ reciprocal[0] + other @ other] * 2)


def test_structure_factor_is_the_sum(monkeypatch):
    random = np.random.default_rng(1)
    scaled, weights = random.uniform(-1, 2, (11, 3)), random.uniform(-1, 1, 11)
    frequencies = [np.arange(-3, 4.0), np.arange(-2, 1.0), np.arange(0, 5.0)]
    direct = np.exp(-2j * np.pi * (np.stack(np.meshgrid(*frequencies, indexing="ij"), -1) @ scaled.T)) @ weights
    arguments = tensor(scaled, True), tensor(weights, True), [tensor(k) for k in frequencies]
    whole = grid.structure_factor(*arguments)
    np.testing.assert_allclose(whole.detach(), direct, atol=1e-13)
    monkeypatch.setattr(grid, "_CHUNK", 4 * 21)
    parts = grid.structure_factor(*arguments)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-13)
    slopes = [torch.autograd.grad(factor.abs().sum(), arguments[:2]) for factor in (whole, parts)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


# Densities of atoms

RADII = 1e-4 * np.exp(0.0125 * np.arange(900))  # a logarithmic mesh, to 7.6 Å
STEPS = 0.0125 * RADII
POSITIONS = np.array([[0.3, 0.1, 0.4], [1.9, 2.2, 7.1]])


def gaussian(radii, width):
    return np.exp(-((radii / width) ** 2))


def superposed(width, shape, positions=POSITIONS, **options):
    return grid.superpose(gaussian(RADII, width), RADII, STEPS, positions, CELL, shape, **options)


@pytest.mark.parametrize("shape", [(28, 24, 30), (27, 25, 31)])
def test_superposed_gaussians(shape):
    """Against the sum over images in real space; the integral is that of one atom times their number."""
    width = 0.7
    density = superposed(width, shape)
    images = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1)
    direct = 0
    for atom in POSITIONS @ np.linalg.inv(CELL):
        nearest = (points(shape, np.eye(3)) - atom + 0.5) % 1 - 0.5
        distances = np.linalg.norm((nearest[:, :, :, None] + images.reshape(-1, 3)) @ CELL, axis=-1)
        direct += gaussian(distances, width).sum(-1)
    assert density.mean() * np.linalg.det(CELL) == pytest.approx(2 * math.pi**1.5 * width**3, rel=1e-9)
    np.testing.assert_allclose(density, direct, atol=2e-8)


def test_superposed_density_moves_with_the_atoms():
    """By a grid vector, where it is not resolved either; and more of them is the sum."""
    shape = 9, 8, 10
    moved = superposed(0.2, shape, POSITIONS + 2 / 9 * CELL[0] - 3 / 10 * CELL[2])
    np.testing.assert_allclose(moved, np.roll(superposed(0.2, shape), (2, -3), (0, 2)), atol=1e-12)
    both = superposed(0.2, shape, POSITIONS[:1]) + superposed(0.2, shape, POSITIONS[1:])
    np.testing.assert_allclose(superposed(0.2, shape), both, atol=1e-12)


def test_cutoff_of_a_superposed_density():
    """Exactly the plane waves whose kinetic energy is below it."""
    shape, cutoff = (20, 20, 24), 150.0
    all_waves, low = (np.fft.fftn(superposed(0.3, shape, cutoff=c)) for c in (None, cutoff))
    wave = np.stack(np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij"), -1)
    kinetic = HARTREE * BOHR**2 / 2 * ((wave @ (2 * math.pi * np.linalg.inv(CELL).T)) ** 2).sum(-1)
    inside = kinetic < cutoff
    np.testing.assert_allclose(low[inside], all_waves[inside], atol=1e-11)
    assert abs(low[~inside]).max() < 1e-11 < 1e-3 < abs(all_waves[~inside]).max()


def test_superpose_is_differentiable():
    def density(positions, cell):
        return grid.superpose(gaussian(RADII, 0.7), RADII, STEPS, positions, cell, (3, 4, 3))

    assert gradcheck(density, (tensor(POSITIONS, True), tensor(CELL, True)), fast_mode=True)


def test_a_mesh_of_even_length_loses_its_last_point():
    odd = grid.superpose(gaussian(RADII[:-1], 0.5), RADII[:-1], STEPS[:-1], POSITIONS, CELL, (4, 4, 4))
    np.testing.assert_allclose(superposed(0.5, (4, 4, 4)), odd, atol=1e-15)


GOOD = dict(density=gaussian(RADII, 0.5), radii=RADII, steps=STEPS, positions=POSITIONS, cell=CELL, shape=(4, 4, 4))


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(shape=(4, 4)), r"shape: got \[4.0, 4.0\], need three positive integers"),
        (dict(shape=(4, 4, 2.5)), "shape: got .*2.5"),
        (dict(shape=(4, 0, 4)), "shape: got .*0.0"),
        (dict(steps=STEPS[1:]), r"got shapes \[900\], \[900\] and \[899\], need one \[M\]"),
        (dict(density=np.full(900, math.nan)), "density: got NaN"),
        (dict(positions=POSITIONS[0]), r"positions: got shape \[3\], need \[N, 3\]"),
        (dict(positions=POSITIONS * math.inf), "positions: got NaN or infinity"),
        (dict(cutoff=-1), "cutoff: got -1 eV, need more than 0"),
        (dict(cell=np.eye(2)), r"cell: got shape \[2, 2\], need \[3, 3\]"),
        (dict(cell=np.diag([3, 3, 0])), "cell: got vectors .* of no volume"),
        (dict(cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]]), "cell: got vectors .* of no volume"),
        (dict(cell=np.diag([3, 3, math.nan])), "cell: got NaN"),
    ],
)
def test_errors(bad, message):
    with pytest.raises(ValueError, match=message):
        grid.superpose(**{**GOOD, **bad})


# Chunks


def test_sum_over_chunks():
    """Value, first and second derivatives do not depend on the size; also of no rows at all."""
    x, y = tensor(np.linspace(-1, 1, 7), True), tensor(np.linspace(0, 2, 7), True)

    def total(size, *tensors):
        return arrays.sum_over_chunks(lambda a, b: (a.sin() * b**2).sum(), size, *tensors)

    assert total(3, x, y).item() == pytest.approx(total(7, x, y).item(), rel=1e-15)
    for size in (3, 7):
        assert torch.autograd.gradgradcheck(lambda a, b: total(size, a, b), (x, y))
    assert total(3, x[:0], y[:0]) == 0


def test_sum_over_chunks_of_complex_numbers():
    """Likewise, with a tensor that all chunks see; one that needs no gradient among them."""
    x, y, z = tensor(np.linspace(-1, 1, 7), True), tensor(np.linspace(0, 2, 7)), tensor([0.3, 1.2], True)

    def wave(z, a, b):
        return torch.polar(1 + a[:, None] ** 2, z * b[:, None]).sum(0)

    def total(size, x, z):
        return arrays.sum_over_chunks(wave, size, x, y, shared=(z,))

    torch.testing.assert_close(total(3, x, z), wave(z, x, y))
    for size in (3, 7):
        assert torch.autograd.gradcheck(lambda x, z: total(size, x, z), (x, z))
        assert torch.autograd.gradgradcheck(lambda x, z: total(size, x, z), (x, z))
