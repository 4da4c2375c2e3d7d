"""Free energy of electrons in a density of states: thermodynamic identities, closed forms, and levels without a width."""

import numpy as np
import pytest
import torch
from scipy.special import expit, xlogy
from torch.autograd import gradcheck

from ase_mlelec.physics import dos as physics
from ase_mlelec.physics import fermi
from ase_mlelec.physics.free_energy import beyond_grid, electronic_free_energy
from ase_mlelec.units import KB

RNG = np.random.default_rng(3)
ENERGIES = np.linspace(-8, 12, 201)
DOS = RNG.uniform(0.3, 2, 201)


def gaussians(levels, weights, width):
    return (weights * np.exp(-(((ENERGIES[:, None] - levels) / width) ** 2))).sum(1) / (width * np.sqrt(np.pi))


def free_energy_of_levels(levels, weights, n_electrons, temperature):
    """E - TS of levels as they are, from occupations at the root of their sum."""
    low, high = levels.min() - 50, levels.max() + 50
    for _ in range(200):
        mu = 0.5 * (low + high)
        f = expit(-(levels - mu) / (KB * temperature))
        low, high = (mu, high) if (weights * f).sum() < n_electrons else (low, mu)
    return (weights * (levels * f + KB * temperature * (xlogy(f, f) + xlogy(1 - f, 1 - f)))).sum()


@pytest.mark.parametrize("temperature", [0.0, 300.0, 2e4])
def test_without_a_width_it_is_band_energy_minus_ts(temperature):
    arguments = ENERGIES, DOS, 9.0, temperature
    wanted = physics.band_energy(*arguments) - temperature * physics.entropy(*arguments)
    assert electronic_free_energy(*arguments) == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize("width", [0.0, 0.3])
def test_its_derivative_by_the_number_of_electrons_is_the_level_without_a_width(width):
    h, temperature = 1e-3, 5e3
    free = [electronic_free_energy(ENERGIES, DOS, 9.0 + x, temperature, width=width) for x in (-h, h)]
    slope = (free[1] - free[0]) / (2 * h)
    level = fermi.fermi_level(ENERGIES, DOS, 9.0, temperature)
    assert (slope == pytest.approx(level, abs=1e-7)) == (width == 0)


def test_its_derivative_by_the_temperature_is_minus_the_entropy():
    h, temperature = 0.5, 5e3
    free = [electronic_free_energy(ENERGIES, DOS, 9.0, temperature + x) for x in (-h, h)]
    assert (free[1] - free[0]) / (2 * h) == pytest.approx(-physics.entropy(ENERGIES, DOS, 9.0, temperature), rel=1e-7)


@pytest.mark.parametrize("width", [0.2, 0.5])
@pytest.mark.parametrize("temperature", [5e3, 2e4])
def test_correction_for_the_width_gives_the_levels_as_they_are(width, temperature):
    """Levels like those of a solid: what is left of the error is of the next order in (width/kT)²."""
    levels, weights = np.sort(RNG.uniform(-6, 8, 400)), np.full(400, 0.05)
    exact = free_energy_of_levels(levels, weights, 9.0, temperature)
    dos = gaussians(levels, weights, width)
    plain, corrected = (electronic_free_energy(ENERGIES, dos, 9.0, temperature, width=w) - exact for w in (0.0, width))
    first_order = width**2 / 4 * dos[np.abs(ENERGIES).argmin()]
    assert abs(plain) > 0.5 * first_order and abs(corrected) < 0.02 * abs(plain) + 2e-4


def test_gradients():
    dos, grid = torch.tensor(DOS[::20], requires_grad=True), torch.tensor(ENERGIES[::20])
    assert gradcheck(lambda d: electronic_free_energy(grid, d, 9.0, 2e4, width=0.5), dos)
    assert gradcheck(lambda d: electronic_free_energy(grid, d, 9.0, 2e3, width=0.0), dos)


def test_first_order_in_density_and_electrons_together():
    """Euler's theorem, by which parts of atoms are defined."""
    dos, n = torch.tensor(DOS, requires_grad=True), torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    free = electronic_free_energy(torch.tensor(ENERGIES), dos, n, 2e4, width=0.5)
    by_dos, by_n = torch.autograd.grad(free, (dos, n))
    assert ((by_dos * dos).sum() + by_n * n).item() == pytest.approx(free.item(), rel=1e-12)


def test_width_is_checked():
    with pytest.raises(ValueError, match="width: got -1 eV, need 0 or more"):
        electronic_free_energy(ENERGIES, DOS, 9.0, 300, width=-1)


def test_states_beyond_the_grid():
    """A constant density that is cut off: the estimate is what the longer grid adds."""
    long = np.linspace(-5, 60, 2601)
    temperature, mu = 2e4, 0.0

    def grand(energies):
        weights = fermi.integration_weights(energies, mu, temperature)
        return ((weights[1] + weights[2]) * 0.4).sum()  # mu = 0: E - TS - mu N

    short = long[long <= 6 + 1e-9]
    missing = beyond_grid(short, np.full(len(short), 0.4), mu, temperature, short[-1])
    assert missing == pytest.approx(grand(short) - grand(long), rel=1e-6) and missing > 0.01
    assert beyond_grid(short, np.full(len(short), 0.4), mu, 300.0, short[-1]) < 1e-50
    assert beyond_grid(short, np.full(len(short), 0.4), 7.0, 300.0, short[-1]) == np.inf
