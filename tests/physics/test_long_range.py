"""Gaussian charges: lattice constants, the macroscopic field of a polar mode, slabs, molecules, derivatives."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from torch.autograd import gradcheck, gradgradcheck

from ase_mlelec.physics import ewald, long_range
from ase_mlelec.units import COULOMB

RNG = np.random.default_rng(8)
CELL = np.array([[4.1, 0.3, -0.2], [-1.2, 3.7, 0.5], [0.4, 0.9, 5.3]])
PERIODS = [(True, True, True), (True, True, False), (False, True, True), (False, False, False)]


def some(n, size=4.0):
    """Positions, and charges that add up to zero."""
    charges = RNG.normal(size=n)
    return RNG.uniform(0, size, (n, 3)), charges - charges.mean()


def leaf(values):
    return torch.tensor(np.array(values), dtype=torch.float64, requires_grad=True)


# Energies with known values


@pytest.mark.parametrize(
    "structure, madelung",
    [("rocksalt", 1.747564594633182), ("cesiumchloride", 1.762674773070988), ("zincblende", 1.638055053388789)],
)
def test_madelung_constants(structure, madelung):
    """Narrow charges that do not overlap are points."""
    atoms = bulk("NaCl", structure, a=5.1)
    distance = 5.1 * {"rocksalt": 1 / 2, "cesiumchloride": 3**0.5 / 2, "zincblende": 3**0.5 / 4}[structure]
    energy = long_range.energy(atoms.positions, [1, -1], np.array(atoms.cell), [True] * 3, 0.17)
    assert energy == pytest.approx(-madelung * COULOMB / distance, rel=1e-12)


@pytest.mark.parametrize("width", [0.3, 0.9, 1.4])
def test_wide_charges_by_fourier_sum(width):
    """4π/G² exp(-G²σ²) over all wave vectors, less the energy of each charge itself: nothing is split."""
    positions, charges = some(5)
    b = 2 * math.pi * np.linalg.inv(CELL).T
    n = 24 if width < 0.5 else 12
    g = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3, indexing="ij"), -1).reshape(-1, 3) @ b
    g = g[(g**2).sum(1) > 1e-9]
    squares = (g**2).sum(1)
    factor = np.exp(-1j * g @ positions.T) @ charges
    whole = 2 * math.pi / abs(np.linalg.det(CELL)) * (np.exp(-squares * width**2) / squares * abs(factor) ** 2).sum()
    itself = (charges**2).sum() / (2 * math.sqrt(math.pi) * width)
    mine = long_range.energy(positions, charges, CELL, [True] * 3, width)
    assert mine == pytest.approx(COULOMB * (whole - itself), rel=1e-11)


@pytest.mark.parametrize("charged", [False, True])
def test_splitting_does_not_matter(charged, monkeypatch):
    positions, charges = some(6)
    inputs = leaf(positions), leaf(charges + charged), leaf(CELL)

    def everything():
        energy = ewald.energy(*inputs, 0.4)
        return [energy, *torch.autograd.grad(energy, inputs)]

    chosen = everything()
    for alpha in 0.5, 1.0, 9.0:  # the last is larger than 1/2σ: nothing is left for the sum over pairs
        monkeypatch.setattr(ewald, "_splitting", lambda n, cell, beta, alpha=alpha: min(alpha, beta))
        torch.testing.assert_close(everything(), chosen, rtol=1e-11, atol=1e-10)


def test_interaction_at_short_and_long_distances():
    """erf(βr)/r: 2β/√π where charges coincide, 1/r far away, and no step between the series and the function."""
    r = torch.tensor([0.0, 1e-9, 0.9 * math.sqrt(1e-3), 1.1 * math.sqrt(1e-3), 1.0, 9.0], dtype=torch.float64)
    values = ewald.erf_over_r(r[:, None] * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64), 1.0)
    exact = [2 / math.sqrt(math.pi)] * 2 + [math.erf(float(x)) / float(x) for x in r[2:]]
    np.testing.assert_allclose(values, exact, rtol=1e-14)
    assert gradcheck(lambda x: ewald.erf_over_r(x, 0.7), leaf([[0, 0, 0], [0.01, 0, 0.02], [1.0, 0.3, -0.2]]))


# The macroscopic field


def test_longitudinal_and_transverse_modes():
    """Curvature of a polar wave of rigid ions: -4π/3 q²/Ω across the wave and 8π/3 q²/Ω along it, as its length grows.

    At the zone center itself, where all cells move alike, it is the transverse one, because there is no field.
    """
    a, width, n = 4.2, 0.15, 12
    cubic = bulk("NaCl", "rocksalt", a=a, cubic=True)
    atoms = cubic * (n, 1, 1)
    charges = np.where(atoms.numbers == 11, 1.0, -1.0)
    volume = a**3 / 4  # of a pair of ions
    pairs = len(atoms) / 2

    def curvature(direction, wave):
        """Of the energy of a pair with the relative displacement u; each ion moves by u/2."""
        step = 1e-2
        phase = np.cos(2 * math.pi * wave * atoms.positions[:, 0] / (n * a))
        pattern = np.outer(charges * phase, direction) / 2

        def at(u):
            return long_range.energy(atoms.positions + u * pattern, charges, np.array(atoms.cell), [True] * 3, width)

        return (at(step) - 2 * at(0.0) + at(-step)) / step**2 / (pairs * (phase**2).mean()) / COULOMB

    along, across = np.eye(3)[0], np.eye(3)[1]
    unit = 4 * math.pi / volume
    assert curvature(along, 0) == pytest.approx(-unit / 3, rel=1e-3)
    assert curvature(across, 0) == pytest.approx(-unit / 3, rel=1e-3)
    assert curvature(across, 1) == pytest.approx(-unit / 3, rel=0.02)
    assert curvature(along, 1) == pytest.approx(2 * unit / 3, rel=0.02)
    # the splitting has no error of the order of the wave vector
    assert curvature(along, 1) - curvature(across, 1) == pytest.approx(unit, rel=0.02)


# Slabs and molecules


def test_slab_is_the_limit_of_much_vacuum():
    """Yeh and Berkowitz: a crystal of slabs, less 2π M_z²/V of the field between them, is exact for much vacuum."""
    positions, charges = some(7, 3.0)
    cell = np.array([[4.0, 0.3, 0.0], [1.0, 4.5, 0.0], [0.0, 0.0, 60.0]])
    crystal = long_range.energy(positions, charges, cell, [True] * 3, 0.8)
    moment = charges @ positions[:, 2]
    corrected = crystal + COULOMB * 2 * math.pi * moment**2 / np.linalg.det(cell)
    slab = long_range.energy(positions, charges, cell, [True, True, False], 0.8)
    assert slab == pytest.approx(corrected, rel=1e-11)


def test_charged_slabs():
    """Two wide plates with charges q and q' at a distance d: -2π q q' d/A; each is uniform, as it is so wide."""
    cell = np.diag([1.0, 1.0, 1.0])
    far = [long_range.energy([[0, 0, 0], [0.4, 0.2, d]], [2, 3], cell, [True, True, False], 1.0) for d in (15, 25)]
    assert far[1] - far[0] == pytest.approx(-2 * math.pi * 6 * 10 * COULOMB, rel=1e-12)


def test_molecule_is_the_sum_over_pairs():
    positions, charges = some(6)
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    i, j = np.triu_indices(6, 1)
    expected = sum(charges[a] * charges[b] * math.erf(distances[a, b] / 1.8) / distances[a, b] for a, b in zip(i, j))
    mine = long_range.energy(positions, charges, np.zeros((3, 3)), [False] * 3, 0.9)
    assert mine == pytest.approx(COULOMB * expected, rel=1e-13)


def test_molecule_in_chunks(monkeypatch):
    positions, charges = some(9)
    inputs = leaf(positions), leaf(charges), leaf(CELL)
    whole = long_range.energy(*inputs, [False] * 3, 0.9)
    monkeypatch.setattr(long_range, "_ROWS", 18)
    parts = long_range.energy(*inputs, [False] * 3, 0.9)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-13)
    slopes = (torch.autograd.grad(item, inputs[:2]) for item in (whole, parts))
    torch.testing.assert_close(*slopes, rtol=1e-11, atol=1e-11)


def test_size_consistency():
    """The energy of two neutral groups is the sum of their energies, and that of their dipoles far apart, -2 p p'/r^3."""
    groups = [some(4, 2.0) for _ in range(2)]
    moments = [charges @ positions for positions, charges in groups]
    single = sum(long_range.energy(*group, CELL, [False] * 3, 1.0) for group in groups)
    for distance in 200.0, 400.0:
        positions = np.concatenate([groups[0][0], groups[1][0] + [0, distance, 0]])
        charges = np.concatenate([groups[0][1], groups[1][1]])
        coupling = moments[0] @ np.diag([1, -2, 1]) @ moments[1] / distance**3 * COULOMB
        joined = long_range.energy(positions, charges, CELL, [False] * 3, 1.0)
        assert joined - single == pytest.approx(coupling, rel=10 / distance)


@pytest.mark.parametrize("pbc", PERIODS[:3])
def test_supercell(pbc):
    positions, charges = some(4)
    atoms = Atoms("H4", positions, cell=CELL, pbc=pbc)
    times = tuple(2 if periodic else 1 for periodic in pbc)
    larger = atoms * times
    n = len(larger) // 4
    energy = long_range.energy(larger.positions, np.tile(charges, n), np.array(larger.cell), pbc, 0.8)
    assert energy == pytest.approx(n * long_range.energy(positions, charges, CELL, pbc, 0.8), rel=1e-11)


# Symmetry and derivatives


@pytest.mark.parametrize("pbc", PERIODS)
def test_symmetry(pbc):
    positions, charges = some(5)
    energy = long_range.energy(positions, charges, CELL, pbc, 0.9)
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    images = RNG.integers(-3, 4, (5, 3)) * np.array(pbc)
    order = [2, 0, 4, 3, 1]
    for arguments in (
        (positions + images @ CELL + [0.3, -5.0, 2.0], charges, CELL),
        (positions[order], charges[order], CELL),
        (positions @ rotation, -charges, CELL @ rotation),
    ):
        assert long_range.energy(*arguments, pbc, 0.9) == pytest.approx(energy, rel=1e-11)


@pytest.mark.parametrize("pbc", PERIODS)
def test_derivatives(pbc):
    """Central differences of fourth order, to 1e-8 of the forces and of the stress."""
    positions, charges = some(4)
    inputs = leaf(positions), leaf(charges), leaf(CELL)
    slopes = torch.autograd.grad(long_range.energy(*inputs, pbc, 0.9), inputs, allow_unused=True)
    steps = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64) * 2e-3
    weights = torch.tensor([1.0, -8.0, 8.0, -1.0], dtype=torch.float64) / (12 * 2e-3)
    with torch.no_grad():
        for value, slope in zip(inputs, slopes):
            found = torch.zeros_like(value)
            for place in np.ndindex(*value.shape):
                direction = torch.zeros_like(value)
                direction[place] = 1.0
                moved = [[x + s * direction if x is value else x for x in inputs] for s in steps]
                energies = torch.stack([long_range.energy(*x, pbc, 0.9) for x in moved])
                found[place] = (weights * energies).sum()
            expected = torch.zeros_like(value) if slope is None else slope
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("pbc", PERIODS)
def test_second_derivatives(pbc):
    """Also where a charge lies on another."""
    positions, charges = some(3)
    positions[2] = positions[0]
    inputs = leaf(positions), leaf(charges)
    assert gradgradcheck(lambda r, q: long_range.energy(r, q, torch.tensor(CELL), pbc, 0.9), inputs, fast_mode=True)


@pytest.mark.parametrize(
    "pbc, width, cell, message",
    [
        ((True, False, False), 1.0, CELL, "pbc: got one period, need none, two or three; make a second direction"),
        ((True, True, True), 0.0, CELL, "width: got 0 Å, need more than 0"),
        ((False,) * 3, -1.0, CELL, "width: got -1 Å, need more than 0"),
        ((True, True, False), 1.0, CELL[[0, 0, 1]], "cell: got the periods .* of no area"),
        ((True, True, True), 1.0, 0 * CELL, "cell: got vectors .* of no volume"),
        ((True, True, False), 1.0, CELL * math.nan, "cell: got NaN"),
    ],
)
def test_errors(pbc, width, cell, message):
    with pytest.raises(ValueError, match=message):
        long_range.energy(*some(3), cell, pbc, width)
