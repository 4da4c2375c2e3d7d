"""Total free energy from the LDOS: an electron gas in closed form, the chain rule, invariances, refusals."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from ase_mlelec.physics import ewald, fermi, hartree, total_energy, xc
from ase_mlelec.units import BOHR, COULOMB, HARTREE, KB

RNG = np.random.default_rng(6)
CELL = np.array([[3.1, 0.2, -0.3], [-1.0, 2.9, 0.4], [0.5, 0.3, 3.3]])
VOLUME = np.linalg.det(CELL)
POSITIONS = np.array([[0.1, 0.2, 0.3], [1.4, 1.6, 1.9]])
CHARGES = np.array([1.0, 3.0])
ENERGIES = np.linspace(-4, 6, 26)
SHAPE = 3, 5, 7
LDOS = RNG.uniform(0.3, 1, (*SHAPE, len(ENERGIES))) * 0.03  # about 6 of 4 electrons
CORE = RNG.uniform(0, 0.2, SHAPE)
GOOD = dict(ldos=LDOS, energies=ENERGIES, cell=CELL, positions=POSITIONS, charges=CHARGES, temperature=3000.0)
TERMS = ["band", "entropy", "hartree", "xc", "xc_potential", "ion_ion"]


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_electron_gas():
    """Every term in closed form: a constant DOS and density, one charge on a bcc lattice, temperature 0."""
    a, charge, states = 3.3, 3.0, 0.5
    cell = a / 2 * (1 - 2 * np.eye(3))
    volume = a**3 / 2
    ldos = np.full((2, 3, 4, len(ENERGIES)), states / volume)
    terms = total_energy.from_ldos(ldos, ENERGIES, cell, np.ones((1, 3)), [charge], 0)
    level = ENERGIES[0] + charge / states
    radius = (3 * volume / (4 * math.pi * charge)) ** (1 / 3) / BOHR  # r_s of the electrons: 2.1
    exchange = -0.75 * (9 / (4 * math.pi**2)) ** (1 / 3) / radius
    root, linear = 1.0529 * radius**0.5, 0.3334 * radius
    correlation = -0.1423 / (1 + root + linear)
    potential = 4 / 3 * exchange + correlation * (1 + 7 / 6 * root + 4 / 3 * linear) / (1 + root + linear)
    exact = {
        "band": states * (level**2 - ENERGIES[0] ** 2) / 2,
        "entropy": 0,
        "hartree": 0,
        "fermi_level": level,
        "xc": charge * HARTREE * (exchange + correlation),
        "xc_potential": charge * HARTREE * potential,
        "ion_ion": -0.895929255682 * charge**2 * COULOMB / (3 * volume / (4 * math.pi)) ** (1 / 3),
    }
    exact["total"] = exact["band"] + exact["xc"] - exact["xc_potential"] + exact["ion_ion"]
    assert terms == pytest.approx(exact, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("name", xc.FUNCTIONALS)
@pytest.mark.parametrize("core", [None, CORE])
def test_terms_are_those_of_the_modules(name, core):
    """From the LDOS, from its two integrals, and one by one."""
    terms = total_energy.from_ldos(**GOOD, xc=name, core_density=core)
    dos, level = LDOS.mean((0, 1, 2)) * VOLUME, terms["fermi_level"]
    weights = fermi.integration_weights(ENERGIES, level, 3000)
    density = LDOS @ weights[0]
    assert density.mean() * VOLUME == pytest.approx(4, rel=1e-13)
    exc, vxc = xc.energies(density, CELL, xc=name, core_density=core)
    one_by_one = {
        "band": weights[1] @ dos,
        "entropy": weights[2] @ dos,
        "hartree": hartree.energy(density, CELL),
        "xc": exc,
        "xc_potential": vxc,
        "ion_ion": ewald.energy(POSITIONS, CHARGES, CELL),
    }
    assert {key: terms[key] for key in TERMS} == pytest.approx(one_by_one, rel=1e-12)
    assert terms["total"] == pytest.approx(
        sum(sign * terms[key] for sign, key in zip((1, 1, -1, 1, -1, 1), TERMS)), rel=1e-14
    )
    assert total_energy.from_density(density, CELL, POSITIONS, CHARGES, xc=name, core_density=core) == pytest.approx(
        {key: terms[key] for key in TERMS[2:]}, rel=1e-12
    )
    assert total_energy.from_dos_and_density(
        dos, ENERGIES, density, CELL, POSITIONS, CHARGES, 3000, xc=name, core_density=core
    ) == pytest.approx(terms, rel=1e-12)


@pytest.mark.parametrize("name, mu", [*((name, None) for name in xc.FUNCTIONALS), ("pbe", 1.7)])
def test_gradients(name, mu):
    """With respect to everything, and where mu is not given, through it."""
    inputs = [leaf(value) for value in (LDOS[:2, :3, :2, ::5], CELL, POSITIONS, CHARGES, 3000.0, CORE[:2, :3, :2])]

    def total(ldos, cell, positions, charges, temperature, core):
        return total_energy.from_ldos(
            ldos, ENERGIES[::5], cell, positions, charges, temperature, xc=name, core_density=core, mu=mu
        )["total"]

    assert gradcheck(total, inputs, fast_mode=True)


def test_the_total_is_not_stationary_in_mu():
    """Its derivative is that of the finite difference, and far from zero."""
    mu = leaf(1.7)
    (slope,) = torch.autograd.grad(total_energy.from_ldos(**GOOD, mu=mu)["total"], mu)
    above, below = (total_energy.from_ldos(**GOOD, mu=1.7 + step)["total"] for step in (1e-4, -1e-4))
    assert slope.item() == pytest.approx((above - below) / 2e-4, rel=1e-6) and abs(slope) > 0.1


def test_chain_rule_over_pieces():
    """∂A/∂LDOS put together from the leaves dos and density, as one does who never holds the whole LDOS."""
    ldos = leaf(LDOS)
    (exact,) = torch.autograd.grad(total_energy.from_ldos(**{**GOOD, "ldos": ldos}, xc="pbe")["total"], ldos)
    point = VOLUME / math.prod(SHAPE)
    energies, values = torch.tensor(ENERGIES), torch.tensor(LDOS)
    dos = (values.sum((0, 1, 2)) * point).requires_grad_()
    level = fermi.fermi_level(energies, dos, CHARGES.sum(), 3000)
    leaf_level = level.detach().requires_grad_()
    weights = fermi.integration_weights(energies, leaf_level, 3000)[0]
    density = (values @ weights.detach()).requires_grad_()
    total = total_energy.from_dos_and_density(
        dos, energies, density, CELL, POSITIONS, CHARGES, 3000, xc="pbe", mu=leaf_level
    )["total"]
    of_dos, of_density, of_level = torch.autograd.grad(total, (dos, density, leaf_level))
    (by_density,) = torch.autograd.grad(values @ weights, leaf_level, of_density)
    (through_level,) = torch.autograd.grad(level, dos, of_level + by_density)
    assembled = (of_dos + through_level) * point + of_density[..., None] * weights.detach()
    torch.testing.assert_close(assembled, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["lda_pz", "pbe"])
def test_invariances(name):
    """Rotation, translation by grid vectors with the atoms, a supercell, and the zero of energy."""
    options = dict(xc=name, core_density=CORE)
    terms = total_energy.from_ldos(**GOOD, **options)
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    rotated = {**GOOD, "cell": CELL @ rotation, "positions": POSITIONS @ rotation}
    assert total_energy.from_ldos(**rotated, **options) == pytest.approx(terms, rel=1e-11)
    moved = {**GOOD, "ldos": np.roll(LDOS, (1, -2), (0, 2)), "positions": POSITIONS + CELL[0] / 3 - CELL[2] * 2 / 7}
    moved_core = np.roll(CORE, (1, -2), (0, 2))
    assert total_energy.from_ldos(**moved, xc=name, core_density=moved_core) == pytest.approx(terms, rel=1e-11)
    double = {
        **GOOD,
        "ldos": np.tile(LDOS, (1, 2, 1, 1)),
        "cell": CELL * [[1], [2], [1]],
        "charges": [*CHARGES] * 2,
        "positions": [*POSITIONS, *(POSITIONS + CELL[1])],
    }
    twice = {key: value if key == "fermi_level" else 2 * value for key, value in terms.items()}
    found = total_energy.from_ldos(**double, xc=name, core_density=np.tile(CORE, (1, 2, 1)))
    assert found == pytest.approx(twice, rel=1e-11)
    shifted = total_energy.from_ldos(**{**GOOD, "energies": ENERGIES + 7}, **options)
    expected = {**terms, **{key: terms[key] + 4 * 7 for key in ("band", "total")}}
    expected["fermi_level"] += 7
    assert shifted == pytest.approx(expected, rel=1e-11)


def test_temperature():
    """Entropy is -∂A/∂T of the band terms at fixed density: -TS and the slope of E_b - TS agree."""

    def free(temperature):
        terms = total_energy.from_dos_and_density(dos, ENERGIES, density, CELL, POSITIONS, CHARGES, temperature)
        return terms["band"] + terms["entropy"], terms["entropy"]

    dos, density = LDOS.mean((0, 1, 2)) * VOLUME, np.full(SHAPE, 4 / VOLUME)
    temperature = leaf(5000.0)
    value, minus_ts = free(temperature)
    (slope,) = torch.autograd.grad(value, temperature)
    assert slope.item() == pytest.approx(minus_ts.item() / 5000, rel=1e-10)
    assert minus_ts < -0.5 * KB * 5000


def test_kinds_of_arrays():
    numbers = total_energy.from_ldos(**GOOD)
    assert list(numbers) == [*TERMS, "total", "fermi_level"] and all(type(item) is float for item in numbers.values())
    tensors = total_energy.from_ldos(**{**GOOD, "ldos": torch.tensor(LDOS).float()})
    assert all(item.dtype == torch.float64 and item.shape == () for item in tensors.values())
    assert {key: item.item() for key, item in tensors.items()} == pytest.approx(numbers, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda():
    """Terms and gradients of the CPU."""
    results = []
    for device in "cpu", "cuda":
        inputs = {
            key: torch.tensor(GOOD[key], dtype=torch.float64, device=device, requires_grad=True)
            for key in ("ldos", "cell", "positions")
        }
        terms = total_energy.from_ldos(**{**GOOD, **inputs}, xc="pbe", core_density=CORE)
        results.append([*terms.values(), *torch.autograd.grad(terms["total"], list(inputs.values()))])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-10, atol=1e-11)


# Refusals


@pytest.mark.parametrize(
    "bad, message",
    [
        (
            dict(ldos=LDOS[0]),
            r"ldos: got shape \[5, 7, 26\], need \[G1, G2, G3, 26\] to match energies; put the energy",
        ),
        (dict(ldos=LDOS[..., :25]), r"ldos: got shape \[3, 5, 7, 25\], need \[G1, G2, G3, 26\]"),
        (dict(ldos=LDOS * np.where(ENERGIES > 5, math.nan, 1)), "ldos: got NaN"),
        (dict(energies=ENERGIES[::-1]), "energies: got 6 then 5.6 eV"),
        (dict(positions=POSITIONS.T), r"positions: got shape \[3, 2\], need \[N, 3\]"),
        (dict(positions=POSITIONS * math.nan), "positions: got NaN"),
        (dict(charges=None), "charges: got none, need one per atom"),
        (dict(charges=[]), "charges: got none"),
        (dict(charges=[4.0]), r"charges: got shape \[1\], need \[2\] to match positions"),
        (dict(charges=[5.0, -1.0]), "charges: got -1 e, need numbers of valence electrons"),
        (dict(charges=[5.0, math.nan]), "charges: got NaN"),
        (dict(charges=[3.0, 9.0]), "n_electrons: got 12, need 0 to .*; widen the energy grid"),
        (dict(mu=6.5), "energies: got a grid from -4 to 6 eV, need one that holds the Fermi level, 6.5 eV; extend"),
        (dict(mu=-4.5), "need one that holds the Fermi level, -4.5 eV"),
        (dict(mu=[1.0, 2.0]), r"mu: got shape \[2\], need one number"),
        (dict(mu=math.nan), "mu: got NaN"),
        (dict(temperature=-3), "temperature: got -3 K"),
        (dict(temperature=[300, 400]), r"temperature: got shape \[2\], need one number"),
        (dict(temperature="hot"), "temperature: got 'hot', need real numbers"),
        (dict(xc="pbsol"), "xc: got 'pbsol', need one of .*; did you mean 'pbesol'"),
        (dict(core_density=CORE[1:]), r"core_density: got shape \[2, 5, 7\], need \[3, 5, 7\]"),
        (dict(cell=CELL[[0, 1, 1]]), "cell: got vectors .* of no volume"),
        (dict(cell=CELL * math.nan), "cell: got NaN"),
        (dict(positions=POSITIONS[[0, 0]]), "positions: got two atoms 0 Å apart"),
    ],
)
def test_errors(bad, message):
    with pytest.raises(ValueError, match=message):
        total_energy.from_ldos(**{**GOOD, **bad})


def test_grid_that_ends_below_the_fermi_level():
    """A hot gas fills the grid up to its end before it holds the electrons: the level then lies beyond."""
    ldos = np.full((1, 1, 1, 5), 4.2 / VOLUME / 4)
    with pytest.raises(ValueError, match="energies: got a grid from -4 to 0 eV, .*; extend the grid of the LDOS"):
        total_energy.from_ldos(ldos, np.linspace(-4, 0, 5), CELL, POSITIONS, CHARGES, 2e4)


def test_dos_of_several_atoms_is_refused():
    with pytest.raises(ValueError, match=r"dos: got shape \[2, 26\], need \[26\]; pass the sum"):
        total_energy.from_dos_and_density(np.ones((2, 26)), ENERGIES, CORE, CELL, POSITIONS, CHARGES, 300)
