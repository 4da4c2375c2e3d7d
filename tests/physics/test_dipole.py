"""Point charges whose dipole is known by hand, wrapped into cells that move."""

import numpy as np
import pytest
import torch

from ase_mlelec.physics import dipole

RNG = np.random.default_rng(4)
CELL = np.array([[5.0, 0.3, 0.0], [-1.2, 6.0, 0.4], [0.5, -0.2, 4.0]])
CHARGES = np.array([6.0, 1, 1, 6, 1, 1, -8, -8])


def trajectory(n=400, breathing=0.0):
    """Fractional positions [n, 8, 3] that drift through several cells, and cells [n, 3, 3]."""
    rng = np.random.default_rng(7)
    walk = rng.uniform(size=(8, 3)) + np.cumsum(rng.normal(0, 0.002, (n, 8, 3)), axis=0)
    walk += 0.005 * np.arange(n)[:, None, None] * rng.choice([-1, 1], (8, 3))
    swing = 1 + breathing * np.sin(np.arange(n) / 9)[:, None, None] * rng.normal(size=(3, 3))
    return walk, CELL * swing


def dipoles_of(fractional, cells):
    return np.einsum("a,nac,ncd->nd", CHARGES, fractional, np.broadcast_to(cells, (len(fractional), 3, 3)))


@pytest.mark.parametrize("breathing", [0.0, 0.03])
def test_unwrapping_undoes_wrapping(breathing):
    """The smooth dipole comes back, on the branch of the first wrapped frame; also where the cell changes."""
    fractional, cells = trajectory(breathing=breathing)
    wrapped = dipoles_of(fractional % 1, cells)
    smooth = dipoles_of(fractional, cells)
    assert np.abs(np.diff(wrapped, axis=0)).max() > 20 > 8 * np.abs(np.diff(smooth, axis=0)).max()
    branch = np.round((wrapped[0] - smooth[0]) @ np.linalg.inv(cells[0]))
    np.testing.assert_allclose(dipole.unwrap(wrapped, cells), smooth + branch @ cells, atol=1e-9)


def test_one_cell_for_all_frames():
    fractional, _ = trajectory(50)
    wrapped = dipoles_of(fractional % 1, CELL)
    np.testing.assert_array_equal(dipole.unwrap(wrapped, CELL), dipole.unwrap(wrapped, np.tile(CELL, (50, 1, 1))))
    np.testing.assert_array_equal(dipole.unwrap(wrapped[:1], CELL), wrapped[:1])


def test_the_mean_cell_makes_branches_equal():
    """Dipoles of a breathing cell on two branches differ by more than a constant; in the mean cell they do not."""
    fractional, cells = trajectory(breathing=0.03)
    smooth = dipoles_of(fractional, cells)
    other = smooth + [2, -1, 3] @ cells
    assert np.ptp(other - smooth, axis=0).max() > 0.5
    shift = dipole.in_mean_cell(other, cells) - dipole.in_mean_cell(smooth, cells)
    np.testing.assert_allclose(shift, np.tile([2, -1, 3] @ cells.mean(0), (len(cells), 1)), atol=1e-10)
    np.testing.assert_allclose(dipole.in_mean_cell(smooth, cells), dipoles_of(fractional, cells.mean(0)), atol=1e-10)
    np.testing.assert_array_equal(dipole.in_mean_cell(smooth, CELL), smooth)


def test_nearest_branch():
    reference = RNG.normal(size=(7, 3))
    near = reference + RNG.uniform(-0.49, 0.49, (7, 3)) @ CELL
    found = dipole.nearest_branch(near + RNG.integers(-9, 9, (7, 3)) @ CELL, reference, CELL)
    np.testing.assert_allclose(found, near, atol=1e-12)


def test_quantum_is_what_wrapping_one_charge_changes():
    quantum = dipole.polarization_quantum(CELL)
    np.testing.assert_allclose(quantum * np.linalg.det(CELL), CELL, rtol=1e-14)
    left_handed = dipole.polarization_quantum(CELL[[1, 0, 2]])
    np.testing.assert_allclose(left_handed, quantum[[1, 0, 2]], rtol=1e-14)


def test_gradients_pass_through():
    """Branches are constants, so that the derivative of an unwrapped dipole is that of the dipole."""
    wrapped = torch.tensor(dipoles_of(trajectory(20)[0] % 1, CELL), requires_grad=True)
    (gradient,) = torch.autograd.grad(dipole.unwrap(wrapped, CELL).sum(), wrapped)
    assert torch.equal(gradient, torch.ones_like(wrapped))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: dipole.unwrap(np.zeros((4, 2)), CELL), r"dipoles: got shape \[4, 2\], need \[..., 3\]"),
        (lambda: dipole.unwrap(np.zeros(3), CELL), r"need \[n, 3\]"),
        (lambda: dipole.unwrap(np.zeros((4, 3)), np.tile(CELL, (3, 1, 1))), "one cell, or one per frame"),
        (lambda: dipole.unwrap(np.zeros((4, 3)), np.zeros((3, 3))), "cells: got .* a volume of 0"),
        (lambda: dipole.unwrap([[0, 0, 0], [2.0, 3.0, 2.0]], CELL), "a change by 0.49 e .* frame 0 to 1"),
        (lambda: dipole.nearest_branch([np.nan, 0, 0], [0, 0, 0], CELL), "dipoles: got NaN"),
        (lambda: dipole.polarization_quantum(np.eye(2)), r"cells: got shape \[2, 2\]"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
