"""Band gaps from broadened densities of states: closed forms, and first-principles levels of magnesium oxide."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from ase_mlelec.data.frames import read_hdf5
from ase_mlelec.physics import gap
from ase_mlelec.physics.gap import broadened_edge, gap_of_dos, hidden_gap

MGO = Path(__file__).parents[2] / "examples/data/mgo.h5"
GRID = torch.linspace(-8, 8, 81, dtype=torch.float64)
WIDTH = 0.5442  # eV


def insulator(vbm=-1.7, cbm=2.4, powers=(1, 1), heights=(0.3, 0.1)):
    """Density of states with two edges, and its number of electrons."""
    lower, upper = (
        height * broadened_edge(distance / WIDTH, power)
        for height, power, distance in zip(heights, powers, (GRID - vbm, cbm - GRID))
    )
    return lower + upper, float(torch.trapezoid(lower, GRID))


@pytest.mark.parametrize("power", [0, 1, 2])
@pytest.mark.parametrize("u", [-3.0, -0.4, 0.0, 1.3, 5.0])
def test_broadened_edges(u, power):
    """The integral, and its logarithmic slope against a difference."""

    def value(u):
        return quad(lambda t: t**power * np.exp(-((u + t) ** 2)), 0, max(-u, 0) + 12, epsabs=0, epsrel=1e-13)[0]

    at, h = torch.tensor(u, dtype=torch.float64), 1e-4
    assert float(broadened_edge(at, power)) == pytest.approx(value(u), rel=1e-7)
    slope = -(np.log(value(u + h)) - np.log(value(u - h))) / (2 * h)
    assert float(gap._slope(at, power)) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("scale", [0.3, 1.0, 30.0])
def test_linear_edges_are_found_whatever_their_height(scale):
    dos, n_electrons = insulator()
    found = gap_of_dos(GRID, scale * dos, scale * n_electrons, width=WIDTH)
    assert (float(found.vbm), float(found.cbm)) == pytest.approx((-1.7, 2.4), abs=5e-3)
    assert float(found.n_electrons) == pytest.approx(scale * n_electrons, rel=1e-5)


@pytest.mark.parametrize("powers", [(0, 2), (2, 0)])
def test_other_edges_are_within_two_standard_deviations(powers):
    dos, n_electrons = insulator(powers=powers)
    found = gap_of_dos(GRID, dos, n_electrons, width=WIDTH)
    for edge, exact, error in zip((found.vbm, found.cbm), (-1.7, 2.4), found.uncertainty):
        assert 0.5 * error < abs(edge - exact) < 2.2 * error and error < 0.15


def test_without_a_width_edges_are_where_the_density_falls_to_the_threshold():
    dos = torch.where(GRID < 0, 0.5 * torch.exp(-2 * (GRID + 3)), 0.5 * torch.exp(2 * (GRID - 4)))
    found = gap_of_dos(GRID, dos, float(torch.trapezoid(dos[GRID <= 0], GRID[GRID <= 0])), width=0.0, threshold=0.01)
    half = np.log(50) / 2
    assert (float(found.vbm), float(found.cbm)) == pytest.approx((-3 + half, 4 - half), abs=1e-6)
    assert float(found.uncertainty[0]) == 0


def test_electrons_choose_the_gap():
    """Number of electrons off by little; by much there is none, nor in a metal, nor at the end of the grid."""
    dos, n_electrons = insulator()
    for share in (0.99, 1.015):
        found = gap_of_dos(GRID, dos, share * n_electrons, width=WIDTH)
        assert float(found.n_electrons) == pytest.approx(n_electrons, rel=1e-4)
    assert gap_of_dos(GRID, dos, 0.9 * n_electrons, width=WIDTH) is None
    assert gap_of_dos(GRID, dos + 0.01, n_electrons, width=WIDTH) is None
    lower = insulator(heights=(0.3, 0.0))[0]
    assert gap_of_dos(GRID, lower, n_electrons, width=WIDTH) is None


def test_of_numbers_of_states_that_are_unsure_the_widest_gap_counts():
    """A weak level above the gap holds less than the electrons that the valence band misses."""
    dos, n_electrons = insulator(vbm=-3.0, cbm=5.5)
    level = 0.01 * n_electrons * torch.exp(-(((GRID - 3.0) / WIDTH) ** 2)) / (WIDTH * np.sqrt(np.pi))
    missed = {"n_electrons": 1.008 * n_electrons, "width": WIDTH, "threshold": 1e-3}
    nearest, widest = (gap_of_dos(GRID, dos + level, **missed, unsure=unsure) for unsure in (0.004, 0.01))
    assert float(nearest.n_electrons) == pytest.approx(1.01 * n_electrons, rel=1e-3) and float(nearest.vbm) > 2
    assert float(widest.n_electrons) == pytest.approx(n_electrons, rel=1e-3)
    assert float(widest.vbm) == pytest.approx(-3.0, abs=5e-3)
    missed |= {"n_electrons": 1.05 * n_electrons, "tolerance": 0.01}
    assert gap_of_dos(GRID, dos + level, **missed, unsure=0.03) is None
    assert float(gap_of_dos(GRID, dos + level, **missed, unsure=0.06).cbm) == pytest.approx(float(widest.cbm))


def test_derivatives():
    """First order, against central differences."""
    dos, n_electrons = insulator()
    leaf = dos.clone().requires_grad_(True)
    found = gap_of_dos(GRID, leaf, n_electrons, width=WIDTH)
    (slopes,) = torch.autograd.grad(found.cbm - found.vbm, leaf)
    direction = dos * torch.from_numpy(np.random.default_rng(0).normal(size=81))

    def size(step):
        each = gap_of_dos(GRID, dos + step * direction, n_electrons, width=WIDTH)
        return float(each.cbm - each.vbm)

    assert float((slopes * direction).sum()) == pytest.approx((size(1e-4) - size(-1e-4)) / 2e-4, rel=1e-5)


def test_hidden_gap_of_two_steps():
    """A gap that broadening has filled is found back from the minimum."""
    for size in (0.4, 0.8, 1.2):
        dos = sum(torch.special.erfc(x / WIDTH) / 2 for x in (GRID + size / 2, size / 2 - GRID))
        assert hidden_gap(GRID, dos, 0.0, width=WIDTH) == pytest.approx(size, abs=0.03)
    assert hidden_gap(GRID, torch.ones(81), 0.0, width=WIDTH) == 0


@pytest.mark.parametrize("label", ["dos", "ados"])
@pytest.mark.slow
def test_magnesium_oxide(label):
    """Gap, middle and electrons of densities of states made of levels whose edges are known exactly."""
    frames = read_hdf5(MGO)
    known, grid = frames.attributes["electronic_levels"], torch.from_numpy(np.array(frames.energies))
    errors = []
    for frame in frames:
        level, vbm, cbm, projected = known[frame.name]
        vbm, cbm, n = vbm - level, cbm - level, len(frame.atoms)  # spectra are relative to the Fermi level
        dos = torch.from_numpy(np.atleast_2d(frame.labels[label]).sum(0) / n)
        electrons = 4.0 if label == "dos" else projected / n
        found = gap_of_dos(grid, dos, 1.01 * electrons, width=frames.attributes["dos_width_eV"])
        errors.append([found.vbm - vbm, found.cbm - cbm, found.cbm - found.vbm - (cbm - vbm)])
        assert float(found.n_electrons) == pytest.approx(electrons, abs=1e-3)
    errors = np.array(errors, dtype=float)
    assert len(errors) >= 160
    assert (np.sqrt((errors**2).mean(0)) < (0.05, 0.15, 0.15)).all()
    assert np.abs(errors[:, :2].sum(1) / 2).mean() < 0.07  # the middle of the gap
