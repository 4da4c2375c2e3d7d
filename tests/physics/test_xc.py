"""Exchange-correlation: libxc as a peer, limits of the functionals, potentials as derivatives, small densities."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ase_mlelec.physics import xc
from ase_mlelec.units import BOHR, HARTREE

CELL = np.array([[3.1, 0.2, -0.3], [-1.0, 2.9, 0.4], [0.5, 0.3, 3.3]])
VOLUME = np.linalg.det(CELL)
RNG = np.random.default_rng(4)
NAMES = list(xc.FUNCTIONALS)
GRADIENT = ["pbe", "pbesol"]
LIBXC = {
    "lda_pz": "LDA_X,LDA_C_PZ",
    "lda_pw": "LDA_X,LDA_C_PW",
    "pbe": "GGA_X_PBE,GGA_C_PBE",
    "pbesol": "GGA_X_PBE_SOL,GGA_C_PBE_SOL",
}


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def smooth_density(shape, offset=0.05):
    """Positive density of a few plane waves, electrons/Å^3."""
    x, y, z = np.meshgrid(*(2 * math.pi * np.arange(n) / n for n in shape), indexing="ij")
    return offset + 0.02 * np.cos(x + 0.3) + 0.01 * np.sin(y - z) + 0.012 * np.cos(x + y + 1)


# One point


@pytest.mark.parametrize("name", NAMES)
def test_libxc(name, monkeypatch):
    """Energy, first and second derivatives over ten decades of density, in atomic units."""
    libxc = pytest.importorskip("pyscf.dft.libxc", reason="needs pyscf")
    n = np.geomspace(2e-6, 1e3, 60)
    reduced = np.array([0.1, 0.5, 1, 2, 5]) if name in GRADIENT else np.zeros(1)
    n, s = (item.ravel() for item in np.meshgrid(n, reduced))
    sigma = (2 * (3 * math.pi**2 * n) ** (1 / 3) * n * s) ** 2
    n, sigma = [item[(sigma > 1e-9) | (s == 0)] for item in (n, sigma)]
    monkeypatch.setattr(xc, "_PW92", (0.0310907 if name in GRADIENT else xc._PW92[0], *xc._PW92[1:]))  # as libxc does
    density, squares = leaf(n / BOHR**3), leaf(sigma / BOHR**8)
    value = xc.energy_density(density, squares, xc=name)
    first = torch.autograd.grad(value.sum(), (density, squares), create_graph=True, allow_unused=True)
    rho = np.stack([n, sigma**0.5, 0 * n, 0 * n]) if name in GRADIENT else n
    energy, slopes, curvatures, _ = libxc.eval_xc(LIBXC[name], rho, deriv=2)

    def close(found, wanted, unit, tolerance):
        np.testing.assert_allclose(found.detach().numpy() / unit, wanted, rtol=tolerance)

    close(value, n * energy, HARTREE / BOHR**3, 1e-12)
    close(first[0], slopes[0], HARTREE, 1e-10)
    (second,) = torch.autograd.grad(first[0].sum(), density, retain_graph=True)
    if name == "lda_pz":
        close(second, curvatures[0], HARTREE * BOHR**3, 1e-9)
    if name in GRADIENT:
        close(first[1], slopes[1], HARTREE * BOHR**5, 1e-8)
        assert np.all(abs(second.detach().numpy() / (HARTREE * BOHR**3) / curvatures[0] - 1) < 1e-6)


def test_uniform_gas():
    """Exchange -0.4582/rs in closed form; both correlations within 1 mHa of the Monte Carlo energies they interpolate.

    Ceperley and Alder, Phys. Rev. Lett. 45, 566 (1980), as tabulated by Perdew and Zunger 1981.
    """
    rs = np.array([1, 2, 5, 10, 20, 50, 100])
    correlation = -np.array([0.0598, 0.0450, 0.0281, 0.0186, 0.0115, 0.0057, 0.0032])
    n = 3 / (4 * math.pi * rs**3) / BOHR**3
    for name in "lda_pz", "lda_pw":
        total = xc.energy_density(n, xc=name) / n / HARTREE
        exchange = -0.75 * (9 / (4 * math.pi**2)) ** (1 / 3) / rs
        np.testing.assert_allclose(total - exchange, correlation, atol=1.1e-3)


def test_pbe_leaves_the_linear_response_of_the_uniform_gas_alone():
    """To first order in |∇n|², exchange and correlation gradients cancel in PBE; in PBEsol they do not."""
    n, sigma = torch.full((5,), 0.3, dtype=torch.float64), torch.logspace(-5, -3, 5, dtype=torch.float64)
    local = xc.energy_density(n, xc="lda_pw")
    excess, of_pbesol = ((xc.energy_density(n, sigma, xc=name) - local) / sigma for name in GRADIENT)
    assert (abs(excess / of_pbesol) < 5e-3).all()
    assert abs(excess[0] / excess[2]).item() == pytest.approx(0.1, rel=0.1)  # the next order, σ²


@pytest.mark.parametrize("name", GRADIENT)
def test_strong_gradient(name):
    """Exchange is enhanced by 1.804 at most (Lieb and Oxford), and correlation vanishes."""
    n = 0.3
    value = xc.energy_density(n, 1e12, xc=name)
    exchange = -0.75 * (3 / math.pi) ** (1 / 3) * (n * BOHR**3) ** (4 / 3) * HARTREE / BOHR**3
    assert value / exchange == pytest.approx(1.804, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_energy_density_is_differentiable(name):
    density, squares = leaf([0.002, 0.1, 0.9, 20.0]), leaf([0.003, 0.2, 0.7, 30.0])

    def value(*inputs):
        return xc.energy_density(*inputs, xc=name)

    inputs = (density, squares) if name in GRADIENT else (density,)
    assert gradcheck(value, inputs)
    assert gradgradcheck(value, inputs, eps=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_small_and_negative_densities(name):
    """An odd function of n, zero below the threshold, with finite values and derivatives everywhere."""
    n = np.concatenate([[0], np.geomspace(1e-300, 1e3, 600)])
    sigma = np.concatenate([[0], np.geomspace(1e-300, 1e30, 40)])
    n, sigma = (item.ravel() for item in np.meshgrid(n, sigma))
    density, squares = leaf(np.concatenate([n, -n])), leaf(np.concatenate([sigma, sigma]))
    value = xc.energy_density(density, squares, xc=name)
    above, below = value.detach().chunk(2)
    assert torch.equal(above, -below)
    assert (above[n < 1e-10 / BOHR**3] == 0).all() and (above[n > 1.01e-10 / BOHR**3] < 0).all()
    first = torch.autograd.grad(value.sum(), (density, squares), create_graph=True, allow_unused=True)
    assert all(slope is None or slope.isfinite().all() for slope in first)
    (second,) = torch.autograd.grad(first[0].sum(), density)
    assert value.isfinite().all() and second.isfinite().all()


# A grid


@pytest.mark.parametrize("name", NAMES)
def test_uniform_density(name):
    energy, potential = xc.energies(np.full((3, 4, 5), 0.2), CELL, xc=name)
    density = leaf(0.2)
    per_volume = xc.energy_density(density, leaf(0.0), xc=name)
    (slope,) = torch.autograd.grad(per_volume, density)
    assert energy == pytest.approx(VOLUME * per_volume.item(), rel=1e-13)
    assert potential == pytest.approx(VOLUME * 0.2 * slope.item(), rel=1e-13)


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("shape", [(7, 6, 9), (6, 8, 5)])
@pytest.mark.parametrize("name", NAMES)
def test_potential_energy_is_the_functional_derivative(name, shape, core):
    """∫ n v_xc with v_xc = dE_xc/dn by automatic differentiation through the Fourier transforms, noise included."""
    density = leaf(smooth_density(shape) + RNG.uniform(0, 0.01, shape))
    core = RNG.uniform(0, 0.3, shape) if core else None
    energy, potential = xc.energies(density, CELL, xc=name, core_density=core)
    (slope,) = torch.autograd.grad(energy, density)
    assert potential.item() == pytest.approx((slope * density).sum().item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_core_density(name):
    """The functional of the sum; of its potential energy, the share of the valence density."""
    valence, core = smooth_density((6, 5, 4)), smooth_density((6, 5, 4), 0.2) ** 2
    energy, of_valence = xc.energies(valence, CELL, xc=name, core_density=core)
    same, of_core = xc.energies(core, CELL, xc=name, core_density=valence)
    both = xc.energies(valence + core, CELL, xc=name)
    assert (energy, of_valence + of_core) == pytest.approx(both, rel=1e-13) and same == pytest.approx(energy, rel=1e-13)
    assert xc.energies(valence, CELL, xc=name, core_density=0 * core) == xc.energies(valence, CELL, xc=name)


@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_of_a_plane_wave(name):
    """A density that varies along one axis: the integral of the closed form on a fine one-dimensional mesh."""
    wave_number = 2 * math.pi / 2.4
    energy, potential = xc.energies(
        0.1 + 0.02 * np.cos(2 * math.pi / 32 * np.arange(32))[:, None, None], np.diag([2.4, 3, 2]), xc=name
    )
    x = np.arange(300) * (2 * math.pi / 300)
    density, squares = leaf(0.1 + 0.02 * np.cos(x)), leaf((0.02 * wave_number * np.sin(x)) ** 2)
    value = xc.energy_density(density, squares, xc=name)
    of_density, of_squares = torch.autograd.grad(value.sum(), (density, squares))
    assert energy == pytest.approx(value.mean().item() * 14.4, rel=1e-12)
    by_parts = (density * of_density + 2 * squares * of_squares).mean().item() * 14.4
    assert potential == pytest.approx(by_parts, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_vacuum(name):
    """A slab whose density rings around zero and is exactly zero in places: all finite, and the energy as without."""
    x = np.arange(48)[:, None, None] / 48
    slab = 0.2 * np.exp(-((x - 0.5) ** 2) / 0.003) + np.zeros((48, 3, 4))
    ringing = 1e-7 * np.cos(30 * math.pi * x) * RNG.uniform(-1, 1, slab.shape)
    ringing[:2] = -slab[:2]
    cell = CELL * [[6], [1], [1]]
    density = leaf(slab + ringing)
    energies = xc.energies(density, leaf(cell), xc=name)
    slopes = [torch.autograd.grad(energy, density, retain_graph=True)[0] for energy in energies]
    assert all(slope.isfinite().all() for slope in slopes)
    assert [energy.item() for energy in energies] == pytest.approx(xc.energies(slab, cell, xc=name), rel=1e-5)


@pytest.mark.parametrize("name", ["lda_pz", "pbe"])
def test_symmetry(name):
    density = smooth_density((7, 6, 8)) + RNG.uniform(0, 0.01, (7, 6, 8))
    exact = xc.energies(density, CELL, xc=name)
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    for same, cell in (
        (density, CELL @ rotation),
        (np.roll(density, (1, 2, -1), (0, 1, 2)), CELL),
        (np.roll(density[::-1, ::-1, ::-1], 1, (0, 1, 2)), CELL),
        (density.swapaxes(0, 2), CELL[::-1]),
    ):
        assert xc.energies(same, cell, xc=name) == pytest.approx(exact, rel=1e-12)
    smooth = smooth_density((7, 6, 8))
    double = xc.energies(np.tile(smooth, (1, 2, 2)), CELL * [[1], [2], [2]], xc=name)
    assert np.divide(double, 4) == pytest.approx(xc.energies(smooth, CELL, xc=name), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name):
    inputs = leaf(smooth_density((2, 4, 3))), leaf(CELL), leaf(RNG.uniform(0, 0.2, (2, 4, 3)))

    def energies(density, cell, core):
        return xc.energies(density, cell, xc=name, core_density=core)

    assert gradcheck(energies, inputs, fast_mode=True)
    assert gradgradcheck(energies, inputs, fast_mode=True, atol=1e-4)


def test_chunks(monkeypatch):
    inputs = leaf(smooth_density((5, 4, 6))), leaf(CELL)
    whole = xc.energies(*inputs, xc="pbe")
    monkeypatch.setattr(xc, "_CHUNK", 17)
    parts = xc.energies(*inputs, xc="pbe")
    for one, other in zip(whole, parts):
        assert one.item() == pytest.approx(other.item(), rel=1e-14)
        torch.testing.assert_close(
            *(torch.autograd.grad(item, inputs, retain_graph=True) for item in (one, other)), rtol=1e-12, atol=1e-13
        )


def test_no_graph_without_gradients():
    density, cell = smooth_density((3, 4, 5)), leaf(CELL)
    with torch.no_grad():
        without = xc.energies(density, cell, xc="pbe")
    assert not any(item.requires_grad for item in without)
    assert all(item.requires_grad for item in xc.energies(density, cell, xc="pbe"))
    assert xc.energies(density, CELL, xc="pbe") == tuple(item.item() for item in without)


GOOD = dict(density=np.ones((2, 2, 2)), cell=CELL)


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(xc="PBE-sol"), "xc: got 'PBE-sol', need one of lda_pz, lda_pw, pbe, pbesol; did you mean 'pbesol'"),
        (dict(xc="lda"), "did you mean 'lda_p"),
        (dict(xc="scan"), "xc: got 'scan', need one of .*; another functional cannot"),
        (dict(xc=None), "xc: got None"),
        (dict(core_density=np.ones((2, 2, 3))), r"core_density: got shape \[2, 2, 3\], need \[2, 2, 2\]"),
        (dict(core_density=np.full((2, 2, 2), math.nan)), "core_density: got NaN"),
        (dict(density=np.ones(8)), r"density: got shape \[8\]"),
        (dict(cell=np.ones((3, 3))), "cell: got vectors .* of no volume"),
    ],
)
def test_errors(bad, message):
    with pytest.raises(ValueError, match=message):
        xc.energies(**{**GOOD, **bad})


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(density=1.0, xc="pbe"), r"squared_gradient: got None, need \[\] to match density; pbe depends on it"),
        (dict(density=[1.0, 2.0], squared_gradient=1.0, xc="pbe"), r"squared_gradient: got shape \[\], need \[2\]"),
        (dict(density=1.0, squared_gradient=math.nan, xc="pbe"), "squared_gradient: got NaN"),
        (dict(density=math.nan), "density: got NaN"),
    ],
)
def test_errors_of_energy_density(arguments, message):
    with pytest.raises(ValueError, match=message):
        xc.energy_density(**arguments)
