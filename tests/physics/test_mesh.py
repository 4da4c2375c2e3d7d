"""Structure factors by way of a mesh: against the sum over charges, in energies, forces and stress, and when it is used."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradgradcheck

from ase_mlelec.physics import ewald, grid, long_range, mesh

CELL = np.array([[7.1, 0.3, -0.2], [-1.2, 6.7, 0.5], [0.4, 0.9, 9.3]])
PERIODS = [(True, True, True), (True, True, False)]


def some(n, cell=CELL, seed=8):
    """Positions also outside of the cell, and charges that add up to zero."""
    rng = np.random.default_rng(seed)
    charges = rng.normal(size=n)
    return rng.uniform(-0.5, 1.5, (n, 3)) @ cell, charges - charges.mean()


def leaves(*arrays):
    return [torch.tensor(np.array(array), dtype=torch.float64, requires_grad=True) for array in arrays]


def everything(inputs, pbc, width):
    energy = long_range.energy(*inputs, pbc, width)
    return [energy, *torch.autograd.grad(energy, inputs)]


@pytest.fixture
def always(monkeypatch):
    """Calling it makes the mesh be taken for any number of charges."""
    return lambda: monkeypatch.setattr(
        mesh, "cost", lambda n, reach: torch.zeros(reach.shape[:-1], dtype=torch.float64)
    )


@pytest.mark.parametrize("pbc", PERIODS)
@pytest.mark.parametrize("width", [0.7, 1.25])
def test_energies_and_slopes_are_those_of_the_sum(pbc, width, always):
    """Of the largest force, 1e-8; of the energy, 1e-9."""
    positions, charges = some(40)
    positions[:, 2] *= 0.5
    inputs = leaves(positions, charges, CELL)
    expected = everything(inputs, pbc, width)
    always()
    found = everything(inputs, pbc, width)
    assert found[0].item() != expected[0].item()
    for mine, exact, relative in zip(found, expected, (1e-9, 1e-8, 1e-9, 1e-8)):
        torch.testing.assert_close(mine, exact, rtol=0, atol=relative * float(exact.detach().abs().max()))


def test_waves_of_low_frequency_are_exact():
    """The error falls as (k/(n - k))^p; at the points of the mesh there is none."""
    box = tuple(torch.arange(first, 7.0, dtype=torch.float64) for first in (-6, -6, 0))
    positions, charges = (torch.tensor(values) for values in some(5, np.eye(3)))
    error = (mesh.structure_factor(positions, charges, box) - grid.structure_factor(positions, charges, box)).abs()
    assert float(error[6, 6, 0]) < 1e-12  # of the wave vector zero
    by_frequency = error[6, 6]  # along the third axis
    n = 2 * 13 + 1  # the smallest mesh for these frequencies
    assert 1e-10 < float(by_frequency[6]) < 50 * (6 / (n - 6)) ** 8 and float(by_frequency[1]) < 50 * (1 / (n - 1)) ** 8
    nodes = (positions * 27).round() / 27
    torch.testing.assert_close(*(each.structure_factor(nodes, charges, box) for each in (mesh, grid)))


@pytest.mark.parametrize("pbc", PERIODS)
def test_slopes_are_finite_differences(pbc, always):
    """Of the energy by the mesh itself, to 1e-8: the forces conserve it whatever the mesh."""
    always()
    inputs = leaves(*some(6), CELL)
    _, *slopes = everything(inputs, pbc, 0.9)
    steps = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64) * 2e-3
    weights = torch.tensor([1.0, -8.0, 8.0, -1.0], dtype=torch.float64) / (12 * 2e-3)
    with torch.no_grad():
        for k, slope in enumerate(slopes):
            direction = torch.tensor(np.random.default_rng(k).normal(size=slope.shape))
            moved = [[x + s * direction if j == k else x for j, x in enumerate(inputs)] for s in steps]
            found = (weights * torch.stack([long_range.energy(*each, pbc, 0.9) for each in moved])).sum()
            assert found.item() == pytest.approx((slope * direction).sum().item(), abs=1e-8)


def test_chunks_and_second_derivatives(always, monkeypatch):
    always()
    inputs = leaves(*some(9), CELL)
    whole = everything(inputs, [True] * 3, 0.9)
    monkeypatch.setattr(mesh, "_chunk", lambda n_points: 4)
    torch.testing.assert_close(everything(inputs, [True] * 3, 0.9), whole, rtol=1e-11, atol=1e-11)
    cell = torch.tensor(CELL)
    positions, charges = leaves(*(part[:5] for part in some(9)))
    assert gradgradcheck(
        lambda r, q: long_range.energy(r, q, cell, [True] * 3, 0.9), (positions, charges), fast_mode=True
    )


def test_when_it_is_used(monkeypatch):
    """By many charges with a width, and not by some thousand points, whose energies are those of DFT programs."""
    sizes = []
    real = mesh.structure_factor
    monkeypatch.setattr(mesh, "structure_factor", lambda s, w, k: sizes.append(len(s)) or real(s, w, k))
    for n in 64, 2744:
        side = (n * 3.0) ** (1 / 3)
        positions, charges = some(n, side * np.eye(3))
        for width in 1.25, 0.0:
            energy = ewald.energy(positions, charges, side * np.eye(3), width)
            assert math.isfinite(energy)
    assert sizes == [2744]
