"""Polylogarithms, exact integration weights and the Fermi level, by identities and by dense quadrature."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ase_mlelec.physics import fermi, polylog
from ase_mlelec.units import KB

TEMPERATURES = [1, 10, 298, 933, 3e3, 1e4, 1e5]
RNG = np.random.default_rng(1)
GRIDS = {
    "uniform": np.linspace(-10, 10, 201),
    "fine": np.linspace(-10, 10, 2001),
    "random": np.sort(RNG.uniform(-10, 10, 200)),
    "geometric": np.concatenate([-np.geomspace(9, 1e-3, 40), [0, 8]]),
}
DOS = {name: RNG.uniform(0, 2, len(grid)) for name, grid in GRIDS.items()}


def quadrature(energies, dos, mu, temperature):
    """N, E and -TS of a piecewise-linear DOS by composite Gauss-Legendre, dense within 60 kT of mu."""
    kT = KB * temperature
    cuts = np.unique(np.concatenate([energies, np.clip(mu + kT * np.linspace(-60, 60, 241), *energies[[0, -1]])]))
    node, weight = np.polynomial.legendre.leggauss(20)
    half = np.diff(cuts)[:, None] / 2
    points = cuts[:-1, None] + half * (1 + node)
    x = (points - mu) / kT
    y = np.exp(-abs(x))
    f = np.where(x > 0, y, 1) / (1 + y)
    s = -abs(x) * y / (1 + y) - np.log1p(y)
    weighted = weight * half * np.interp(points, energies, dos)
    return [np.sum(weighted * g) for g in (f, points * f, kT * s)]


def leaf(*values):
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]


# Polylogarithms


def test_polylog_special_values():
    """Li_n(-1) = -η(n), and the golden-ratio value of Li_2(-1/φ)."""
    assert polylog.polylog(1, 0.0) == pytest.approx(-math.log(2), rel=1e-15)
    assert polylog.polylog(2, 0.0) == pytest.approx(-(math.pi**2) / 12, rel=1e-15)
    assert polylog.polylog(3, 0.0) == pytest.approx(-0.75 * 1.2020569031595942, rel=1e-15)
    log_phi = math.log((1 + math.sqrt(5)) / 2)
    assert polylog.polylog(2, -log_phi) == pytest.approx(-(math.pi**2) / 15 + log_phi**2 / 2, rel=1e-15)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_polylog_is_the_fermi_integral(order):
    """-Γ(n) Li_n(-e^x) = ∫ t^(n-1)/(e^(t-x) + 1) dt on both sides of 0, and the defining series for x < 0."""
    x = np.linspace(-30, 30, 25)[:, None, None]
    node, weight = np.polynomial.legendre.leggauss(20)
    t = np.arange(80)[:, None] + 0.5 * (1 + node)
    integral = np.sum(0.5 * weight * t ** (order - 1) * np.exp(-np.logaddexp(0, t - x)), (1, 2)) / math.gamma(order)
    np.testing.assert_allclose(polylog.polylog(order, x[:, 0, 0]), -integral, rtol=1e-14)
    x, k = np.linspace(-30, -1, 50), np.arange(1, 60)[:, None]
    np.testing.assert_allclose(polylog.polylog(order, x), np.sum((-1.0) ** k * np.exp(k * x) / k**order, 0), rtol=1e-15)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_polylog_derivative_is_the_lower_order(order):
    x = torch.cat([torch.linspace(-40, 40, 321, dtype=torch.float64), torch.tensor([-1e4, 1e4])]).requires_grad_()
    (first,) = torch.autograd.grad(polylog.polylog(order, x).sum(), x, create_graph=True)
    torch.testing.assert_close(first, polylog.polylog(order - 1, x), rtol=1e-14, atol=0)
    if order > 1:
        (second,) = torch.autograd.grad(first.sum(), x)
        torch.testing.assert_close(second, polylog.polylog(order - 2, x), rtol=1e-13, atol=0)


def test_polylog_limits():
    x = 1e4
    assert polylog.polylog(1, x) == -x
    assert polylog.polylog(2, x) == pytest.approx(-(x**2) / 2 - math.pi**2 / 6, rel=1e-15)
    assert polylog.polylog(3, x) == pytest.approx(-(x**3) / 6 - math.pi**2 / 6 * x, rel=1e-15)
    assert [polylog.polylog(n, -x) for n in range(4)] == [0, 0, 0, 0]


def test_moments_are_the_printed_formulas():
    """Eqs. (A4)-(A8) from the polylogarithms, in the range where they do not cancel."""
    x = np.linspace(-8, 8, 33)
    l1, l2, l3 = (polylog.polylog(n, x) for n in (1, 2, 3))
    for order, printed in enumerate([x + l1, x**2 / 2 + x * l1 - l2, x**3 / 3 + x**2 * l1 - 2 * x * l2 + 2 * l3]):
        np.testing.assert_allclose(polylog.fermi_moment(order, x), printed, rtol=1e-13, atol=2e-13)
    for order, printed in enumerate([-x * l1 + 2 * l2, -(x**2) * l1 + 3 * x * l2 - 3 * l3]):
        np.testing.assert_allclose(polylog.entropy_moment(order, x), printed, rtol=1e-13, atol=2e-13)


def test_moments_are_antiderivatives():
    """dF_n/dx = x^n f, dS_n/dx = x^n s, and the entropy density -s obeys (-s)'(x) = x f'(x)."""
    x = torch.linspace(-50, 50, 401, dtype=torch.float64, requires_grad=True)
    f = torch.sigmoid(-x)
    for order in range(3):
        (slope,) = torch.autograd.grad(polylog.fermi_moment(order, x).sum(), x)
        torch.testing.assert_close(slope, x**order * f, rtol=1e-13, atol=1e-15)
    (s,) = torch.autograd.grad(polylog.entropy_moment(0, x).sum(), x, create_graph=True)
    (weighted,) = torch.autograd.grad(polylog.entropy_moment(1, x).sum(), x)
    torch.testing.assert_close(weighted, x * s, rtol=1e-13, atol=1e-15)
    (ds,) = torch.autograd.grad(s.sum(), x)
    torch.testing.assert_close(ds, x * torch.sigmoid(x) * f, rtol=1e-12, atol=1e-15)


# Weights


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mu", [-7.3, 0.0, 0.05])
def test_weights_integrate_a_piecewise_linear_dos_exactly(grid, temperature, mu):
    energies, dos = GRIDS[grid], DOS[grid]
    got = [weights @ dos for weights in fermi.integration_weights(energies, mu, temperature)]
    np.testing.assert_allclose(got, quadrature(energies, dos, mu, temperature), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("temperature", [0, 1e-6, 298, 1e5])
def test_weights_do_not_depend_on_the_grid(temperature):
    """A linear DOS on two points, on many, and on any others integrates to the same, across every branch."""
    random = np.concatenate([[-6], np.sort(RNG.uniform(-6, 7, 50)), [7]])
    grids = [np.array([-6.0, 7.0]), np.linspace(-6, 7, 1001), random]
    values = [[w @ (2 + 0.1 * e) for w in fermi.integration_weights(e, 0.4, temperature)] for e in grids]
    np.testing.assert_allclose(values[1:], [values[0]] * 2, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mu", [-0.5, 0.0, 0.123, 5.0, -5.0])
def test_weights_at_zero_temperature(mu):
    """A constant DOS filled up to mu: N = mu - ε_0, E = (mu² - ε_0²)/2, no entropy; also with mu on a grid point."""
    number, energy, entropy = fermi.integration_weights(np.linspace(-2, 2, 9), mu, 0)
    top = np.clip(mu, -2, 2)
    assert number.sum() == pytest.approx(top + 2, abs=1e-15)
    assert energy.sum() == pytest.approx((top**2 - 4) / 2, abs=1e-15)
    assert abs(entropy).max() < 1e-50


def test_weights_obey_sommerfeld():
    """Free-electron DOS sqrt(ε): N and E against the Sommerfeld expansion to order T^4."""
    energies = np.concatenate([[0], np.geomspace(1e-6, 12, 20000)])
    mu, kT = 5.0, 0.2
    number, energy, _ = (w @ np.sqrt(energies) for w in fermi.integration_weights(energies, mu, kT / KB))
    t = (math.pi * kT / mu) ** 2
    assert number == pytest.approx(2 / 3 * mu**1.5 * (1 + t / 8 + 7 * t**2 / 640), rel=2e-7)
    assert energy == pytest.approx(2 / 5 * mu**2.5 * (1 + 5 * t / 8 - 7 * t**2 / 384), rel=2e-7)


@pytest.mark.parametrize("temperature", [5.0, 300.0, 2e3, 4e4])
def test_weights_are_differentiable(temperature):
    """In mu, the grid and T; and dN/dmu, dN/dT are the slope weights.  Spacings on both sides of kT."""
    energies, mu, temperature = leaf([-2.0, -1.0, -0.6, -0.599, -0.4, 0.3, 2.0], 0.1, temperature)
    assert gradcheck(fermi.integration_weights, (energies, mu, temperature), eps=1e-5, atol=1e-6, rtol=1e-5)
    number = fermi.integration_weights(energies, mu, temperature)[0].sum()
    d_mu, d_temperature = torch.autograd.grad(number, (mu, temperature))
    window = [weights.sum() for weights in fermi.slope_weights(energies, mu, temperature)]
    torch.testing.assert_close(d_mu, window[0] / (KB * temperature), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(d_temperature, window[1] / temperature, rtol=1e-10, atol=1e-16)


def test_weights_batch_over_mu_and_temperature():
    energies, mu, temperature = GRIDS["random"], np.array([-1.0, 0.2]), np.array([[5.0], [3e3], [2e4]])
    batched = fermi.integration_weights(energies, mu, temperature)
    assert batched[0].shape == (3, 2, 200)
    for i, j in np.ndindex(3, 2):
        single = fermi.integration_weights(energies, mu[j], temperature[i, 0])
        np.testing.assert_allclose([w[i, j] for w in batched], single, rtol=1e-13, atol=1e-15)


def test_entropy_weights_are_minus_ts_over_minus_t():
    entropy = fermi.integration_weights(GRIDS["uniform"], 0.3, 800)[2]
    np.testing.assert_allclose(fermi.entropy_weights(GRIDS["uniform"], 0.3, 800), -entropy / 800, rtol=1e-14)


def test_occupation():
    assert fermi.occupation(0.3, 0.3, 500) == 0.5
    assert list(fermi.occupation([-1, 0, 1], 0, 0)) == [1, 0.5, 0]
    assert fermi.occupation(1.0, 0.0, 1000) == pytest.approx(1 / (1 + math.exp(1 / (KB * 1000))), rel=1e-13)


# Fermi level


@pytest.mark.parametrize("temperature", [0, *TEMPERATURES])
@pytest.mark.parametrize("grid", GRIDS)
def test_fermi_level_holds_the_electrons(grid, temperature):
    energies, dos = GRIDS[grid], DOS[grid]
    n_electrons = np.trapezoid(dos, energies) * np.array([0.02, 0.5, 0.9])
    mu = fermi.fermi_level(energies, dos, n_electrons, temperature)
    np.testing.assert_allclose(fermi.integration_weights(energies, mu, temperature)[0] @ dos, n_electrons, atol=1e-12)


@pytest.mark.parametrize("temperature", [0, 20, 300, 1e4, 1e5])
@pytest.mark.parametrize("gap", [0, 0.5, 4])
def test_fermi_level_of_a_symmetric_dos_is_zero(temperature, gap):
    """Particle-hole symmetry, in a metal and in a gap in which N(mu) is flat to machine precision."""
    energies = np.linspace(-6, 6, 121)
    dos = np.clip(abs(energies) - gap / 2, 0, None) + (gap == 0)
    mu = fermi.fermi_level(energies, dos, np.trapezoid(dos, energies) / 2, temperature)
    assert abs(mu) < max(1e-8, 0.02 * KB * temperature)


def test_fermi_level_in_a_gap_shifts_with_the_band_weights():
    """mu = midgap + kT/2 ln(D_v/D_c), although the carriers, e^-60 of a state, do not show in N."""
    energies = np.array([-3, -1.5 - 1e-9, -1.5, 1.5, 1.5 + 1e-9, 4])
    dos = np.array([2.0, 2, 0, 0, 0.5, 0.5])
    assert fermi.fermi_level(energies, dos, 3.0 - 1e-9, 290) == pytest.approx(0.5 * KB * 290 * math.log(4), rel=0.02)


@pytest.mark.parametrize("temperature", [0, 300])
def test_fermi_level_of_empty_and_full_bands(temperature):
    energies, dos = np.linspace(0, 1, 11), np.ones(11)
    for n_electrons in (0, 1):
        mu = fermi.fermi_level(energies, dos, n_electrons, temperature)
        assert fermi.integration_weights(energies, mu, temperature)[0].sum() == pytest.approx(n_electrons, abs=1e-12)


def test_fermi_level_batches():
    energies, dos = GRIDS["uniform"], np.stack([DOS["uniform"], 1 + DOS["uniform"]])
    temperature = np.array([[10.0], [1e4]])
    mu = fermi.fermi_level(energies, dos, 7.0, temperature)
    assert mu.shape == (2, 2)
    for i, j in np.ndindex(2, 2):
        assert mu[i, j] == pytest.approx(fermi.fermi_level(energies, dos[j], 7, temperature[i, 0]), abs=1e-12)


@pytest.mark.parametrize("temperature", [500.0, 2e4])
def test_fermi_level_is_differentiable(temperature):
    energies = torch.linspace(-3, 3, 5, dtype=torch.float64)
    dos, n_electrons, temperature = leaf(RNG.uniform(0.5, 2, (2, 5)), 3.0, temperature)

    def level(*inputs):
        return fermi.fermi_level(energies, *inputs)

    assert gradcheck(level, (dos, n_electrons, temperature), eps=1e-5, atol=1e-6)
    assert gradgradcheck(level, (dos, n_electrons, temperature), eps=1e-5, atol=1e-6)


def test_fermi_level_in_a_gap_at_zero_temperature_has_finite_derivatives():
    energies = torch.linspace(-3, 3, 7, dtype=torch.float64)
    (dos,) = leaf([1.0, 1, 0, 0, 0, 1, 1])
    mu = fermi.fermi_level(energies, dos, 1.5, 0)
    mu.backward()
    assert abs(mu) < 1e-5 and (dos.grad == 0).all()


def test_fermi_level_of_a_dos_that_dips_below_zero():
    """Predicted spectra do; N(mu) is then not monotonic, yet a root is a root."""
    energies, dos = GRIDS["uniform"], DOS["uniform"] - 0.2
    mu = fermi.fermi_level(energies, dos, 8.0, [0, 300])
    np.testing.assert_allclose(fermi.integration_weights(energies, mu, [0, 300])[0] @ dos, 8, atol=1e-12)


# Kinds of array, and errors


def test_numpy_equals_torch():
    energies, dos = GRIDS["random"], DOS["random"]
    tensors = torch.tensor(energies), torch.tensor(dos)
    mu = fermi.fermi_level(energies, dos, 9, 700)
    assert isinstance(mu, float)
    mu_tensor = fermi.fermi_level(*tensors, 9, 700)
    assert isinstance(mu_tensor, torch.Tensor) and mu_tensor.shape == () and mu_tensor.item() == mu
    assert fermi.fermi_level(tensors[0].float(), tensors[1].float(), 9, 700).dtype == torch.float64
    both = (fermi.integration_weights(grid, mu, 700) for grid in (energies, tensors[0]))
    for array, tensor in zip(*both):
        assert isinstance(array, np.ndarray) and isinstance(tensor, torch.Tensor)
        np.testing.assert_array_equal(array, tensor.numpy())
    assert isinstance(fermi.occupation([0.1, 0.2], 0, 300), np.ndarray)
    reversed_view = energies[::-1][::-1]
    reversed_view.flags.writeable = False
    assert fermi.fermi_level(reversed_view, list(dos), 9, 700) == mu


GOOD = dict(energies=[0.0, 1.0, 2.0], dos=[1.0, 1.0, 1.0], n_electrons=1.0, temperature=300.0)


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(energies=[0.0, 2.0, 1.0]), "energies: got 2 then 1 eV at point 1, need increasing"),
        (dict(energies=[0.0, 1.0, 1.0]), "energies: got 1 then 1 eV"),
        (dict(energies=[[0.0, 1.0, 2.0]]), r"energies: got shape \[1, 3\], need \[S\]"),
        (dict(energies=[0.0]), r"energies: got shape \[1\]"),
        (dict(energies=[0.0, math.nan, 2.0]), "energies: got NaN"),
        (dict(energies=["a", "b", "c"]), "energies: got .*, need real numbers"),
        (
            dict(energies=torch.tensor([0.0, 1.0, 2.0], requires_grad=True)),
            "energies: got a grid that requires gradients",
        ),
        (dict(dos=[1.0, 1.0]), r"dos: got shape \[2\], need \[..., 3\]"),
        (dict(dos=[1.0, math.nan, 1.0]), "dos: got NaN"),
        (dict(temperature=-1.0), "temperature: got -1 K, need a finite number >= 0"),
        (dict(temperature=math.nan), "temperature: got nan K"),
        (dict(n_electrons=2.1), "n_electrons: got 2.1, need 0 to 2, .* widen the energy grid"),
        (dict(n_electrons=-0.1), "n_electrons: got -0.1, need 0 to 2"),
        (dict(n_electrons=[1.0, math.nan]), "n_electrons: got nan"),
    ],
)
def test_errors_of_fermi_level(bad, message):
    with pytest.raises(ValueError, match=message):
        fermi.fermi_level(**{**GOOD, **bad})


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fermi.integration_weights([0, 1], math.nan, 300), "mu: got NaN"),
        (lambda: fermi.integration_weights([1, 0], 0, 300), "energies: got 1 then 0 eV"),
        (lambda: fermi.integration_weights([0, 1], 0, -3), "temperature: got -3 K"),
        (lambda: fermi.occupation(0, 0, -3), "temperature: got -3 K"),
        (lambda: polylog.polylog(4, 0.0), "order: got 4, need 0, 1, 2 or 3"),
        (lambda: polylog.fermi_moment(3, 0.0), "order: got 3"),
        (lambda: polylog.entropy_moment(0.5, 0.0), "order: got 0.5"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
