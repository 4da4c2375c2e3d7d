"""Spectra of motions that are known in closed form; absolute values derived a second time, in SI units."""

import time

import numpy as np
import pytest
import scipy.constants as si
import torch

from ase_mlelec.physics import dipole, spectra

STEP, TEMPERATURE, VOLUME = 0.5, 300.0, 900.0  # fs, K, Å^3
ANGULAR = 2e-13 * np.pi * si.c  # rad/fs per cm^-1
DEBYE_PER_METRE = si.e * si.angstrom  # C m per e Å


def sines(lines, n=40000, step=STEP):
    """Dipoles [n, 3] and their derivatives, e Å/fs: along each axis one line of (wavenumber, amplitude)."""
    t = step * np.arange(n)
    omega, size = np.array(lines).T[..., None] * [[[ANGULAR]], [[1.0]]]
    phase = np.array([0.2, 1.1, 2.5])[:, None]
    return (size * np.sin(omega * t + phase)).T, (size * omega * np.cos(omega * t + phase)).T


LINES = [(300.0, 0.5), (1650.0, 0.2), (3400.0, 0.1)]
DIPOLES, DERIVATIVES = sines(LINES)


def prefactor(temperature=TEMPERATURE, volume=VOLUME):
    """β/(6 ε_0 c V) in SI, times (C m/s)² s per (e Å/fs)² fs, 1/cm per 1/m."""
    si_units = 1 / (6 * si.k * temperature * si.epsilon_0 * si.c * volume * si.angstrom**3)
    return si_units * DEBYE_PER_METRE**2 / si.femto * 0.01


# Infrared


def test_lines_have_place_width_and_area():
    """A sharp line becomes a Gaussian of the resolution asked for, with the area of its mean square derivative."""
    nu, alpha = spectra.infrared(DIPOLES, STEP, TEMPERATURE, VOLUME, resolution=40)
    for wavenumber, size in LINES:
        near = abs(nu - wavenumber) < 100
        area = np.trapezoid(alpha[near], nu[near])
        # ∫ S dω = π <Ṁ²> over positive ω, and dω = ANGULAR dν
        assert area == pytest.approx(prefactor() * np.pi * (size * wavenumber * ANGULAR) ** 2 / 2 / ANGULAR, rel=4e-3)
        center = np.trapezoid(nu[near] * alpha[near], nu[near]) / area
        assert center == pytest.approx(wavenumber, abs=0.1)
        above = nu[near][alpha[near] > alpha[near].max() / 2]
        assert np.ptp(above) == pytest.approx(40, abs=2 * nu[1])
    assert nu[0] == 0 and nu[-1] <= 4000 < nu[-1] + nu[1] and nu[1] <= 5
    assert alpha.min() > -1e-8 * alpha.max()


def test_damped_oscillator():
    """M = e^-γt/2 sin ωt from t = 0 on: |FT of its derivative|² is a Lorentzian, broadened by the window only."""
    t, center, damping = STEP * np.arange(-2000, 30000), 2500 * ANGULAR, 120 * ANGULAR
    decay = np.where(t > 0, np.exp(-damping * t / 2) * np.sin(center * t), 0.0)
    nu, alpha = spectra.infrared(decay[:, None] * [0.6, 0.0, 0.8], STEP, TEMPERATURE, VOLUME, resolution=30)
    fine = np.arange(-4500, 4500, 5.0) * ANGULAR
    transform = fine * center / ((damping / 2 + 1j * fine) ** 2 + center**2)
    exact = prefactor() * abs(transform) ** 2 / (STEP * (len(t) - 1))
    width = 30 * ANGULAR / np.sqrt(8 * np.log(2))
    kernel = np.exp(-(((nu[:, None] * ANGULAR - fine) / width) ** 2) / 2)
    broadened = kernel @ exact / kernel.sum(1)
    inside = nu < 3900
    np.testing.assert_allclose(alpha[inside], broadened[inside], atol=2e-3 * broadened.max())
    assert nu[alpha.argmax()] == pytest.approx(2500, abs=5)


def test_sum_rule_of_free_charges():
    """∫ Re σ dω = π/2 Σ q²/(m V), at any temperature, for charges with the velocities of equipartition."""
    charges, masses = np.array([2.0, -1, -1]) * si.e, np.array([16.0, 1, 1]) * si.atomic_mass
    for temperature in (100.0, 900.0):
        velocity = np.random.default_rng(0).normal(size=(20000, 3, 3))
        velocity /= np.sqrt((velocity**2).mean(0))
        current = np.einsum("a,nac->nc", charges, velocity * np.sqrt(si.k * temperature / masses)[:, None])
        expected = 3 * si.k * temperature * (charges**2 / masses).sum()
        current *= np.sqrt(expected / (current**2).sum(1).mean())  # no correlation between the charges
        nyquist = 0.5 / (STEP * si.femto * si.c * 100)
        nu, alpha = spectra.infrared_from_derivative(
            current / DEBYE_PER_METRE * si.femto,
            STEP,
            temperature,
            VOLUME,
            max_wavenumber=nyquist * (1 - 1e-12),
            resolution=200,
        )
        conductivity = si.epsilon_0 * si.c * 100 * alpha  # S/m
        got = np.trapezoid(conductivity, 2 * np.pi * si.c * 100 * nu)
        assert got == pytest.approx(np.pi / 2 * (charges**2 / masses).sum() / (VOLUME * si.angstrom**3), rel=1e-2)


def test_parseval():
    """Whatever the series and the resolution, the integral up to the Nyquist frequency is the mean square."""
    series = np.random.default_rng(1).normal(size=(5000, 3)).cumsum(0)
    nyquist = 0.5 / (STEP * 1e-15 * si.c * 100)
    for resolution in (40, 300):
        nu, alpha = spectra.infrared_from_derivative(
            series, STEP, TEMPERATURE, VOLUME, resolution=resolution, max_wavenumber=nyquist
        )
        expected = prefactor() * np.pi / ANGULAR * (series**2).sum(1).mean()
        assert np.trapezoid(alpha, nu) == pytest.approx(expected, rel=2e-3)


def test_dipoles_and_derivatives_agree():
    """Also at 5 fs, where a difference quotient alone would lose a third of the intensity at 2800 cm^-1."""
    for step, lines in (STEP, LINES), (5.0, [(300.0, 0.5), (1650.0, 0.2), (2800.0, 0.1)]):
        series, derivatives = sines(lines, 20000, step)
        _nu, alpha = spectra.infrared(series, step, TEMPERATURE, VOLUME, max_wavenumber=3300, resolution=30)
        other = spectra.infrared_from_derivative(
            derivatives, step, TEMPERATURE, VOLUME, max_wavenumber=3300, resolution=30
        )[1]
        np.testing.assert_allclose(alpha, other, atol=2e-3 * alpha.max())


def test_origin_and_wrapping_have_no_effect():
    """Another origin, and ions and electrons that change their image at every crossing of the cell boundary."""
    cell = np.diag([7.0, 8.0, 6.0])
    reference = spectra.infrared(DIPOLES, STEP, TEMPERATURE, VOLUME)[1]
    shifted = spectra.infrared(DIPOLES + [40.0, -3.0, 11.0], STEP, TEMPERATURE, VOLUME)[1]
    np.testing.assert_allclose(shifted, reference, atol=1e-9 * reference.max())
    jumps = np.random.default_rng(2).integers(-3, 4, DIPOLES.shape) @ cell
    wrapped = spectra.infrared(dipole.unwrap(DIPOLES + jumps, cell), STEP, TEMPERATURE, VOLUME)[1]
    np.testing.assert_allclose(wrapped, reference, atol=1e-9 * reference.max())


def test_order_of_frames_in_the_file():
    order = np.random.default_rng(3).permutation(len(DIPOLES))
    times = 7000 + STEP * np.arange(len(DIPOLES))
    step, sorted_dipoles, sorted_order = spectra.in_order(times[order], DIPOLES[order], order)
    assert step == pytest.approx(STEP, rel=1e-12)
    np.testing.assert_array_equal(sorted_dipoles, DIPOLES)
    np.testing.assert_array_equal(sorted_order, np.arange(len(DIPOLES)))


def test_rotation_and_time_reversal_have_no_effect():
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    reference = spectra.infrared(DIPOLES, STEP, TEMPERATURE, VOLUME)[1]
    for other in (DIPOLES @ turn, DIPOLES[::-1]):
        np.testing.assert_allclose(
            spectra.infrared(other, STEP, TEMPERATURE, VOLUME)[1], reference, atol=1e-9 * reference.max()
        )


def test_quantum_correction():
    nu, alpha = spectra.infrared(DIPOLES, STEP, TEMPERATURE, VOLUME)
    corrected = spectra.infrared(DIPOLES, STEP, TEMPERATURE, VOLUME, quantum_correction="harmonic")[1]
    x = si.h * si.c * 100 * nu[1:] / (si.k * TEMPERATURE)
    np.testing.assert_allclose(corrected[1:], alpha[1:] * x / (1 - np.exp(-x)), rtol=1e-12)
    assert corrected[0] == alpha[0]


def test_defaults_fit_the_trajectory():
    """10 cm^-1 for long trajectories; a short one gets what it has, and the wavenumbers depend on neither."""
    long, short = sines(LINES, 40000), sines(LINES, 4000)
    assert spectra.infrared(long[0], STEP, 300, VOLUME)[0][1] < 1.3
    nu, alpha = spectra.infrared(short[0], STEP, 300, VOLUME)
    assert 3 < nu[1] < 5 and abs(nu[alpha.argmax()] - 3400) < 10
    same = [spectra.infrared(part[0], STEP, 300, VOLUME, resolution=50)[0] for part in (long, short)]
    np.testing.assert_array_equal(*same)


def test_finest_resolution():
    finest = spectra.finest_resolution(STEP * 2000)
    assert finest == pytest.approx(1 / (si.c * 100 * STEP * 2000 * si.femto), rel=1e-12)
    spectra.infrared(DIPOLES[:2001], STEP, TEMPERATURE, VOLUME, resolution=finest * (1 + 1e-9))
    with pytest.raises(ValueError, match="run 1.0 times as long"):
        spectra.infrared(DIPOLES[:2000], STEP, TEMPERATURE, VOLUME, resolution=finest * 0.999)


def test_a_million_frames_in_seconds():
    series = np.random.default_rng(5).normal(size=(1_000_000, 3))
    start = time.process_time()
    spectra.infrared(series, STEP, TEMPERATURE, VOLUME)
    assert time.process_time() - start < 10


def test_numpy_equals_torch():
    found = spectra.infrared(torch.tensor(DIPOLES, dtype=torch.float32), STEP, TEMPERATURE, VOLUME)
    assert all(isinstance(part, torch.Tensor) and part.dtype == torch.float64 for part in found)
    np.testing.assert_allclose(found[1], spectra.infrared(DIPOLES, STEP, TEMPERATURE, VOLUME)[1], atol=1e-2)


# Raman


def polarizabilities(n=20000):
    """A totally symmetric vibration at 1000 cm^-1 and a purely anisotropic one at 2000 cm^-1."""
    t = STEP * np.arange(n)[:, None, None]
    breathing = np.eye(3) * 0.3 * np.sin(1000 * ANGULAR * t)
    twist = np.array([[0, 0.2, 0], [0.2, 0, 0], [0, 0, 0]]) * np.sin(2000 * ANGULAR * t + 1)
    return 10 * np.eye(3) + breathing + twist


def test_raman_separates_the_parts():
    nu, isotropic, anisotropic = spectra.raman(polarizabilities(), STEP, TEMPERATURE, resolution=30)
    for part, other, center, square in (
        (isotropic, anisotropic, 1000, 0.3**2 / 2),
        (anisotropic, isotropic, 2000, 2 * 0.2**2 / 2 / 10),
    ):
        assert nu[part.argmax()] == pytest.approx(center, abs=nu[1])
        assert np.trapezoid(part, nu) == pytest.approx(square, rel=2e-3)
        assert other[abs(nu - center) < 50].max() < 1e-4 * part.max()
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    turned = spectra.raman(turn @ polarizabilities() @ turn.T, STEP, TEMPERATURE, resolution=30)
    np.testing.assert_allclose(turned[1], isotropic, atol=1e-9 * isotropic.max())
    np.testing.assert_allclose(turned[2], anisotropic, atol=1e-9 * anisotropic.max())


def test_depolarization_of_an_anisotropic_line_is_three_quarters():
    """Orientational average of the scattering tensor of random molecules, by brute force."""
    rng = np.random.default_rng(6)
    beta = np.diag([0.5, -0.2, -0.3])
    turns = np.linalg.qr(rng.normal(size=(20000, 3, 3)))[0]
    tensors = turns @ beta @ turns.transpose(0, 2, 1)
    along, across = (tensors[:, 2, 2] ** 2).mean(), (tensors[:, 0, 2] ** 2).mean()
    invariant = np.trace(beta @ beta) / 10
    assert across == pytest.approx(invariant, rel=0.03) and along == pytest.approx(4 / 3 * invariant, rel=0.03)


def test_stokes_lines_of_hot_vibrations_approach_the_classical_ones():
    cold, hot = (
        spectra.raman(polarizabilities(4000), STEP, temperature, quantum_correction="harmonic")[1]
        for temperature in (300.0, 1e7)
    )
    _nu, classical, _ = spectra.raman(polarizabilities(4000), STEP, 300.0)
    np.testing.assert_allclose(hot, classical, rtol=1e-3, atol=1e-9)
    x = si.h * si.c * 1e5 / (si.k * 300)
    peak = classical.argmax()
    assert cold[peak] / classical[peak] == pytest.approx(x / (1 - np.exp(-x)), rel=0.02)


# Static


def test_dielectric_constant():
    """ε - ε_∞ of dipoles with a known variance, in SI; a constant dipole adds nothing."""
    series = np.random.default_rng(7).normal(size=(3000, 3)) + [9.0, 0, 0]
    variance = series.var(0).sum() * DEBYE_PER_METRE**2
    expected = variance / (3 * si.epsilon_0 * VOLUME * si.angstrom**3 * si.k * TEMPERATURE)
    assert spectra.dielectric_constant(series, TEMPERATURE, VOLUME, 1.8) == pytest.approx(1.8 + expected, rel=1e-8)
    assert spectra.dielectric_constant(np.ones((5, 3)), TEMPERATURE, VOLUME) == 1


def test_dielectric_constant_of_a_known_mean():
    """Blocks shorter than the relaxation (of 100 frames; an Ornstein-Uhlenbeck process): right on average with the mean
    that is known, too small with that of each.
    """
    rng, series = np.random.default_rng(3), np.zeros((40000, 3))
    for k in range(1, len(series)):
        series[k] = 0.99 * series[k - 1] + 0.1411 * rng.normal(size=3)
    expected = spectra.dielectric_constant(series, TEMPERATURE, VOLUME)
    blocks = series.reshape(-1, 50, 3)
    known, unknown = (
        np.mean([spectra.dielectric_constant(block, TEMPERATURE, VOLUME, zero_mean=zero) for block in blocks])
        for zero in (True, False)
    )
    assert known == pytest.approx(expected, rel=5e-3) and unknown < 0.3 * expected


def test_dielectric_constant_is_the_integral_of_the_spectrum():
    """Kramers-Kronig at zero frequency: ε_0 - ε_∞ = 2/π ∫ ε''/ω dω, with ε'' = α n c/ω; lines of DIPOLES."""
    nu, alpha = spectra.infrared(DIPOLES, STEP, TEMPERATURE, VOLUME, resolution=20)
    inside = nu > 100
    integral = np.trapezoid(alpha[inside] / nu[inside] ** 2, nu[inside]) / (2 * np.pi) * 2 / np.pi
    assert 1 + integral == pytest.approx(spectra.dielectric_constant(DIPOLES, TEMPERATURE, VOLUME), rel=5e-3)


# Errors of the mean


def test_block_error():
    """Means of blocks that are known: 0, 1, 2, 3 have the standard error sqrt(5/3)/2; frames that are left over."""
    series = np.repeat(np.arange(4.0), 25)
    value, error = spectra.block_error(np.mean, np.append(series, [7.0, 7.0]), 4)
    assert value == pytest.approx((150 + 14) / 102) and error == pytest.approx(np.sqrt(5 / 3) / 2)


def test_block_error_of_a_spectrum():
    series = np.random.default_rng(8).normal(size=(40000, 3)).cumsum(0)
    value, error = spectra.block_error(
        lambda part: spectra.infrared(part, STEP, TEMPERATURE, VOLUME, resolution=100)[1], series, 8
    )
    assert value.shape == error.shape
    # white noise: the spread of 8 blocks over sqrt(8) is the scatter of the whole around its level
    assert error.mean() == pytest.approx(value.std(), rel=0.4)


# Mistakes


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: spectra.infrared(DIPOLES[:100], STEP, 300, VOLUME, resolution=5),
            "resolution: got 5 cm.-1 for a trajectory of 50 fs, need at least 667 cm.-1; run 133.4 times as long",
        ),
        (lambda: spectra.infrared(DIPOLES, 5.0, 300, VOLUME), "max_wavenumber: got 4000 .* every 5 fs, .* up to 3336"),
        (lambda: spectra.infrared(DIPOLES[:, 0], STEP, 300, VOLUME), r"dipoles: got shape \[40000\], need \[n, 3\]"),
        (lambda: spectra.infrared(DIPOLES[:2], STEP, 300, VOLUME), "at least 3 frames"),
        (lambda: spectra.infrared_from_derivative(DIPOLES.T, STEP, 300, VOLUME), "derivatives: got shape"),
        (lambda: spectra.infrared(DIPOLES * np.nan, STEP, 300, VOLUME), "dipoles: got NaN"),
        (lambda: spectra.infrared(DIPOLES, 0, 300, VOLUME), "timestep_fs: got 0 fs, need one positive number in fs"),
        (lambda: spectra.infrared(DIPOLES, np.ones(40000), 300, VOLUME), r"timestep_fs: got shape \[40000\]"),
        (lambda: spectra.infrared(DIPOLES, STEP, -300, VOLUME), "temperature: got -300 K"),
        (lambda: spectra.infrared(DIPOLES, STEP, 300, 0), "volume: got 0 Å"),
        (lambda: spectra.infrared(DIPOLES, STEP, 300, VOLUME, resolution=0), "resolution: got 0 cm"),
        (lambda: spectra.infrared(DIPOLES, STEP, 300, VOLUME, max_wavenumber=-1), "max_wavenumber: got -1 cm"),
        (
            lambda: spectra.infrared(DIPOLES, STEP, 300, VOLUME, quantum_correction="kubo"),
            "quantum_correction: got 'kubo', need None or 'harmonic'",
        ),
        (lambda: spectra.raman(DIPOLES, STEP, 300), r"polarizabilities: got shape \[40000, 3\], need \[n, 3, 3\]"),
        (lambda: spectra.dielectric_constant(DIPOLES, 0, VOLUME), "temperature: got 0 K"),
        (lambda: spectra.in_order([0, 1, 2, 4], DIPOLES[:4]), "steps of 1 to 2 fs, the first odd one after 2 fs"),
        (lambda: spectra.in_order([0, 1, 1, 2], DIPOLES[:4]), "steps of 0 to 1 fs"),
        (lambda: spectra.in_order([3, 3], DIPOLES[:2]), "steps of 0 to 0 fs"),
        (lambda: spectra.in_order([0, 1], DIPOLES[:3]), r"times: got shape \[2\] for series of \[3\] frames"),
        (lambda: spectra.block_error(np.mean, DIPOLES, 1), "n_blocks: got 1 for 40000 frames"),
        (lambda: spectra.block_error(lambda part: part, DIPOLES, 2), "function: got shape .* give it a resolution"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
