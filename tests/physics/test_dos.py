"""Properties of a density of states, by thermodynamic identities and models with known answers."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from ase_mlelec.physics import dos as physics
from ase_mlelec.physics import fermi
from ase_mlelec.units import KB

RNG = np.random.default_rng(2)
ENERGIES = np.sort(RNG.uniform(-8, 8, 160))
DOS = RNG.uniform(0.2, 2, 160)
SEMICONDUCTOR = np.linspace(-5, 5, 101), np.clip(abs(np.linspace(-5, 5, 101) - 0.2) - 0.7, 0, None)


def test_cumulative_ends_at_the_full_count():
    count = physics.cumulative(ENERGIES, np.stack([DOS, 2 * DOS]))
    np.testing.assert_allclose(count[0], count[1] / 2, rtol=1e-15)
    assert count[0, 0] == 0 and count[0, -1] == pytest.approx(np.trapezoid(DOS, ENERGIES), rel=1e-14)


def test_cumulative_agrees_with_zero_temperature_filling():
    """The Fermi level at T = 0 of the electrons below a grid point is that grid point."""
    np.testing.assert_allclose(
        fermi.fermi_level(ENERGIES, DOS, physics.cumulative(ENERGIES, DOS)[1:-1], 0), ENERGIES[1:-1], atol=1e-11
    )


@pytest.mark.parametrize("order", [0, 1, 2, 5, 18])
def test_moments_of_a_linear_dos(order):
    """∫ ε^n (1 + ε) dε in closed form, on any grid."""
    energies = np.concatenate([[-1.2], np.sort(RNG.uniform(-1.2, 1.3, 5)), [1.3]])
    exact = np.polynomial.Polynomial([0] * order + [1, 1]).integ()
    assert physics.moments(energies, 1 + energies, order) == pytest.approx(exact(1.3) - exact(-1.2), rel=1e-13)


# Gap


def test_band_gap_of_a_semiconductor():
    """Linear edges at -0.5 and 0.9 eV, which reach the threshold 0.01 eV further out."""
    np.testing.assert_allclose(physics.band_gap(*SEMICONDUCTOR, 0.3), (1.42, -0.51, 0.91), rtol=1e-12)


def test_band_gap_does_not_depend_on_the_level_within_it():
    levels = np.array([-0.5, 0.0, 0.1, 0.85])
    gap, vbm, cbm = physics.band_gap(*SEMICONDUCTOR, levels)
    assert np.ptp(vbm) == np.ptp(cbm) == 0 and np.all(gap == cbm - vbm)


def test_band_gap_of_a_metal_is_zero():
    assert physics.band_gap(ENERGIES, DOS, 0.7) == (0, 0.7, 0.7)
    gap, vbm, cbm = physics.band_gap(*SEMICONDUCTOR, [2.0, 0.0])
    assert gap[0] == 0 and vbm[0] == cbm[0] == 2 and gap[1] == pytest.approx(1.42)


def test_band_gap_narrower_than_the_grid_spacing_is_zero():
    """Between two points of the grid a piecewise-linear DOS has no room for a gap."""
    assert physics.band_gap([0, 1, 2], [1.0, 0.5, 1.0], 1.0)[0] == 0
    assert physics.band_gap([0, 1, 2], [1.0, 0.0, 1.0], 1.0)[0] == pytest.approx(0.02)


def test_band_gap_scales_with_the_threshold():
    """A total DOS of 8 atoms and 8 times the threshold are the same question."""
    energies, dos = SEMICONDUCTOR
    assert physics.band_gap(energies, 8 * dos, 0.1, threshold=0.08) == physics.band_gap(energies, dos, 0.1)


# Thermodynamics


@pytest.mark.parametrize("temperature", [30.0, 300.0, 3e3, 3e4])
def test_heat_capacity_is_the_derivative_of_energy_and_of_entropy(temperature):
    n_electrons, h = 9.0, 1e-3 * temperature
    step = np.array([-2, -1, 1, 2])
    stencil = np.array([1, -8, 8, -1]) / 12 / h
    capacity = physics.heat_capacity(ENERGIES, DOS, n_electrons, temperature)
    energy = physics.band_energy(ENERGIES, DOS, n_electrons, temperature + step * h)
    entropy = physics.entropy(ENERGIES, DOS, n_electrons, temperature + step * h)
    assert capacity == pytest.approx(stencil @ energy, rel=1e-6)
    assert capacity == pytest.approx(temperature * stencil @ entropy, rel=1e-8)


@pytest.mark.parametrize("temperature", [30.0, 300.0, 3e4])
def test_heat_capacity_is_the_exact_derivative(temperature):
    """By autograd through the Fermi level: dE/dT = T dS/dT = C at constant N."""
    t = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    energies, dos = torch.tensor(ENERGIES), torch.tensor(DOS)
    capacity = physics.heat_capacity(energies, dos, 9, t).detach()
    for function, factor in ((physics.band_energy, 1), (physics.entropy, temperature)):
        (slope,) = torch.autograd.grad(function(energies, dos, 9, t), t)
        torch.testing.assert_close(factor * slope, capacity, rtol=1e-9, atol=0)


@pytest.mark.parametrize("temperature", [10.0, 300.0, 2000.0])
def test_constant_dos_gives_the_linear_heat_capacity(temperature):
    """C = S = π²/3 k² T D and E(T) - E(0) = π²/6 (kT)² D, without corrections."""
    energies, dos = np.linspace(-10, 10, 101), np.full(101, 1.5)
    linear = math.pi**2 / 3 * KB**2 * temperature * 1.5
    assert physics.heat_capacity(energies, dos, 15, temperature) == pytest.approx(linear, rel=1e-12)
    assert physics.entropy(energies, dos, 15, temperature) == pytest.approx(linear, rel=1e-12)
    excess = physics.band_energy(energies, dos, 15, temperature) - physics.band_energy(energies, dos, 15, 0)
    assert excess == pytest.approx(linear * temperature / 2, abs=1e-13)


def test_free_electrons_follow_sommerfeld():
    """DOS sqrt(ε): mu = E_F (1 - t/12 - t²/80) with t = (πkT/E_F)², and C = π²/3 k² T D(E_F) (1 - 3t/10)."""
    energies = np.concatenate([[0], np.geomspace(1e-6, 12, 20000)])
    dos, level, kT = np.sqrt(energies), 5.0, 0.2
    n_electrons, t = 2 / 3 * level**1.5, (math.pi * kT / level) ** 2
    mu = fermi.fermi_level(energies, dos, n_electrons, kT / KB)
    assert mu == pytest.approx(level * (1 - t / 12 - t**2 / 80), rel=2e-7)
    expected = math.pi**2 / 3 * KB * kT * math.sqrt(level) * (1 - 3 * t / 10)
    assert physics.heat_capacity(energies, dos, n_electrons, kT / KB) == pytest.approx(expected, rel=2e-4)


def test_limit_of_high_temperature():
    """Half-filled states have S = k ln 2 each, and no heat capacity is left."""
    energies, dos = np.linspace(-1, 1, 21), np.ones(21)
    assert physics.entropy(energies, dos, 1, 1e9) == pytest.approx(2 * KB * math.log(2), rel=1e-9)
    assert 0 < physics.heat_capacity(energies, dos, 1, 1e9) < 1e-9 * KB


def test_limits_of_low_temperature():
    """Entropy and heat capacity vanish at T = 0 and, in a gap, exponentially; nothing is 0/0."""
    assert 0 <= physics.entropy(ENERGIES, DOS, 9, 0) < 1e-30
    assert 0 <= physics.heat_capacity(ENERGIES, DOS, 9, 0) < 1e-30
    energies, dos = SEMICONDUCTOR
    n_electrons = physics.cumulative(energies, dos)[50]
    for temperature in (0, 1, 10, 100):
        assert 0 <= physics.entropy(energies, dos, n_electrons, temperature) < 1e-20
        assert 0 <= physics.heat_capacity(energies, dos, n_electrons, temperature) < 1e-20
    cold, zero = physics.band_energy(ENERGIES, DOS, 9, [1e-3, 0])
    assert cold == pytest.approx(zero, abs=1e-12)


def test_entropy_is_positive_and_grows():
    entropy = physics.entropy(ENERGIES, DOS, 9.0, np.geomspace(1, 1e5, 12))
    assert np.all(entropy > 0) and np.all(np.diff(entropy) > 0)


@pytest.mark.parametrize("function", [physics.band_energy, physics.entropy, physics.heat_capacity])
def test_thermodynamics_is_differentiable(function):
    energies = torch.linspace(-3, 3, 5, dtype=torch.float64)
    dos = torch.tensor(RNG.uniform(0.5, 2, (2, 5)), requires_grad=True)
    assert gradcheck(lambda d: 1e3 * function(energies, d, 3.0, 4000.0), (dos,), eps=1e-5, atol=1e-6)


def test_free_energy_is_stationary_in_the_occupations():
    """dA/dD_i = ∫ h_i [(ε - μ) f + kT s] dε at constant N, with A = E - TS: the change of f does not contribute."""
    dos = torch.tensor(DOS, requires_grad=True)
    a = physics.band_energy(ENERGIES, dos, 9, 3000) - 3000 * physics.entropy(ENERGIES, dos, 9, 3000)
    (slope,) = torch.autograd.grad(a, dos)
    mu = fermi.fermi_level(ENERGIES, DOS, 9, 3000)
    number, energy, entropy = fermi.integration_weights(ENERGIES, mu, 3000)
    np.testing.assert_allclose(slope.numpy(), energy - mu * number + entropy, atol=1e-12)


# Order parameter


def test_order_parameter_sums_the_dos_at_three_energies():
    """Exact for a DOS linear in the energy; one number per atom."""
    energies, slopes = np.linspace(-12, 4, 41), np.array([1.0, -2.0, 0.5])
    ados = 3 + slopes[:, None] * energies
    got = physics.order_parameter(energies, ados, 1.1)
    np.testing.assert_allclose(got, 9 + slopes * (3 * 1.1 - 13), rtol=1e-13)
    got = physics.order_parameter(energies, ados, 1.1, offsets=[0.5])
    np.testing.assert_allclose(got, 3 + slopes * 1.6, rtol=1e-13)


def test_order_parameter_at_grid_points_and_ends():
    energies, ados = np.arange(-8.0, 1), RNG.uniform(0, 1, (2, 9))
    np.testing.assert_allclose(physics.order_parameter(energies, ados, 0), ados[:, [8, 3, 0]].sum(1), rtol=1e-15)


# Kinds of array, and errors

CALLS = {
    "cumulative": physics.cumulative,
    "moments": lambda e, d: physics.moments(e, d, 2),
    "band_gap": lambda e, d: physics.band_gap(e, d, 0.1)[0],
    "band_energy": lambda e, d: physics.band_energy(e, d, 3, 500),
    "entropy": lambda e, d: physics.entropy(e, d, 3, 500),
    "heat_capacity": lambda e, d: physics.heat_capacity(e, d, 3, 500),
    "order_parameter": lambda e, d: physics.order_parameter(e, d, 0.1, (0, -2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_numpy_equals_torch_and_batch_equals_single(name):
    energies, dos = SEMICONDUCTOR
    batch = np.stack([dos, 1.5 * dos])
    array, tensor = CALLS[name](energies, batch), CALLS[name](torch.tensor(energies), torch.tensor(batch))
    assert isinstance(array, np.ndarray) and isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64
    np.testing.assert_array_equal(array, tensor.numpy())
    np.testing.assert_allclose([CALLS[name](energies, row) for row in batch], array, rtol=1e-9)
    assert isinstance(CALLS[name](energies, dos), np.ndarray if name == "cumulative" else float)


@pytest.mark.parametrize("name", CALLS)
def test_errors_of_the_grid(name):
    energies, dos = SEMICONDUCTOR
    with pytest.raises(ValueError, match=r"dos: got shape \[100\], need \[..., 101\]"):
        CALLS[name](energies, dos[1:])
    with pytest.raises(ValueError, match="energies: got 5 then 4.9 eV at point 0, need increasing"):
        CALLS[name](energies[::-1], dos)
    with pytest.raises(ValueError, match="dos: got NaN"):
        CALLS[name](energies, dos * math.nan)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e, d: physics.band_gap(e, d, 7.0), "fermi_level: got 7 to 7 eV, need values on the grid, -5 to 5 eV"),
        (lambda e, d: physics.band_gap(e, d, 0.0, threshold=0), "threshold: got 0 states/eV, need more than 0"),
        (lambda e, d: physics.band_gap(e, 0 * d, 0.0), "dos: got a gap that reaches an end of the grid"),
        (
            lambda e, d: physics.order_parameter(e, d, 0.0),
            "offsets: got -8 to 0 eV, need values on the grid, -5 to 5 eV",
        ),
        (lambda e, d: physics.order_parameter(e, d, math.nan), "offsets: got nan"),
        (lambda e, d: physics.moments(e, d, 19), "order: got 19, need an integer from 0 to 18"),
        (lambda e, d: physics.band_energy(e, d, 1e3, 300), "n_electrons: got 1000, need 0 to"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(*SEMICONDUCTOR)


# Derivatives by the density of states


@pytest.mark.parametrize("temperature", [0.0, 300.0, 2e4])
@pytest.mark.parametrize("name", ["fermi_level", "band_energy"])
def test_slopes_against_finite_differences(name, temperature):
    electrons, step = 11.0, 1e-5
    function = {"fermi_level": fermi.fermi_level, "band_energy": physics.band_energy}[name]
    mu = fermi.fermi_level(ENERGIES, DOS, electrons, temperature)
    slopes = (
        fermi.level_slopes(ENERGIES, DOS, mu, temperature)
        if name == "fermi_level"
        else physics.band_energy_and_slopes(ENERGIES, DOS, mu, temperature)[1]
    )
    for change in (RNG.normal(size=160), RNG.normal(size=160)):
        forth, back = (function(ENERGIES, DOS + sign * step * change, electrons, temperature) for sign in (1, -1))
        assert slopes @ change == pytest.approx((forth - back) / (2 * step), rel=1e-5, abs=1e-7)


def test_slopes_in_a_gap():
    """Nothing moves the Fermi level at zero temperature in a gap; the band energy is that of the states below."""
    energies, dos = SEMICONDUCTOR
    assert not fermi.level_slopes(energies, dos, 0.2, 0.0).any()
    found, slopes = physics.band_energy_and_slopes(energies, dos, 0.2, 0.0)
    filled = np.trapezoid(np.where(energies < 0.2, dos, 0.0), energies)
    assert found == pytest.approx(physics.band_energy(energies, dos, filled, 0.0)) and np.isfinite(slopes).all()
