"""Ewald sums: lattice constants known to many digits, torch-pme as a peer, scaling, symmetry, derivatives."""

import math

import ase.neighborlist
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from torch.autograd import gradcheck, gradgradcheck

from ase_mlelec.physics import ewald
from ase_mlelec.units import COULOMB

RNG = np.random.default_rng(5)
CELL = np.array([[4.1, 0.3, -0.2], [-1.2, 3.7, 0.5], [0.4, 0.9, 5.3]])
POSITIONS = np.array([[0.1, 0.2, 0.3], [2.0, 1.1, 2.5], [1.1, 2.9, 4.4]])
CHARGES = np.array([1.0, 2.0, 4.0])
LONG = np.diag([2.5, 2.7, 45.0])  # a slab


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


# Energies with known values


@pytest.mark.parametrize(
    "structure, madelung",
    [("rocksalt", 1.747564594633182), ("cesiumchloride", 1.762674773070988), ("zincblende", 1.638055053388789)],
)
def test_madelung_constants(structure, madelung):
    """-M e²/d per pair of ions at the distance d of nearest neighbors."""
    atoms = bulk("NaCl", structure, a=5.1)
    distance = 5.1 * {"rocksalt": 1 / 2, "cesiumchloride": 3**0.5 / 2, "zincblende": 3**0.5 / 4}[structure]
    energy = ewald.energy(atoms.positions, [1, -1], np.array(atoms.cell))
    assert energy == pytest.approx(-madelung * COULOMB / distance, rel=1e-13)


@pytest.mark.parametrize(
    "structure, constant",
    [("sc", 2.837297479480620 / 2 * (3 / (4 * math.pi)) ** (1 / 3)), ("bcc", 0.895929255682), ("fcc", 0.895873615195)],
)
def test_wigner_crystals(structure, constant):
    """-c (q e)²/r_s of one charge in its background, r_s the radius of the sphere of its volume."""
    cell = np.array(bulk("Po", structure, a=3.3).cell)
    radius = (3 * np.linalg.det(cell) / (4 * math.pi)) ** (1 / 3)
    energy = ewald.energy(np.zeros((1, 3)), [3], cell)
    assert energy == pytest.approx(-constant * 9 * COULOMB / radius, rel=1e-11)


@pytest.mark.parametrize("cell, n_atoms, alphas", [(CELL, 3, [0.3, 0.6, 1.0, 1.7]), (LONG, 4, [0.5, 1.0])])
def test_splitting_does_not_matter(cell, n_atoms, alphas, monkeypatch):
    """The identity behind Ewald's method, with its derivatives; in a slab as in a skewed cell."""
    inputs = leaf(RNG.uniform(0, 1, (n_atoms, 3)) @ cell), leaf(RNG.uniform(-1, 3, n_atoms)), leaf(cell)

    def everything():
        energy = ewald.energy(*inputs)
        return [energy, *torch.autograd.grad(energy, inputs)]

    chosen = everything()
    for alpha in alphas:
        monkeypatch.setattr(ewald, "_splitting", lambda n_atoms, cell, beta: alpha)
        torch.testing.assert_close(everything(), chosen, rtol=1e-11, atol=1e-10)


def test_torch_pme():
    """Another implementation in torch, with its own α; it takes its pairs from a neighbor list."""
    torchpme = pytest.importorskip("torchpme", reason="needs torch-pme")
    n_atoms, smearing = 12, 0.5
    atoms = Atoms("H12", scaled_positions=RNG.uniform(0, 1, (n_atoms, 3)), cell=2 * CELL, pbc=True)
    inputs = leaf(atoms.positions), leaf(RNG.uniform(1, 4, n_atoms)), leaf(np.array(atoms.cell))
    i, j, shift = ase.neighborlist.neighbor_list("ijS", atoms, 6.5 * 2**0.5 * smearing)
    pairs = torch.from_numpy(np.stack([i, j], axis=1))
    positions, charges, cell = inputs
    distances = (positions[j] - positions[i] + torch.from_numpy(shift).double() @ cell).norm(dim=1)
    peer = torchpme.EwaldCalculator(
        torchpme.CoulombPotential(smearing=smearing), lr_wavelength=smearing / 2.2, full_neighbor_list=True
    ).double()
    potential = peer(charges[:, None], cell, positions, pairs, distances)
    theirs = COULOMB * (charges[:, None] * potential).sum()
    ours = ewald.energy(*inputs)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    for mine, other in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs)):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-7)


# Symmetry and scaling


def test_symmetry():
    energy = ewald.energy(POSITIONS, CHARGES, CELL)
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    far, basis = POSITIONS + RNG.integers(-9, 9, (3, 3)) @ CELL + [0.1, 0.7, -3], [[1, 0, 0], [3, 1, 0], [-2, 5, 1]]
    for arguments in (
        (far, CHARGES, CELL),
        (POSITIONS[::-1], CHARGES[::-1], CELL),
        (-POSITIONS, CHARGES, CELL),
        (POSITIONS @ rotation, CHARGES, CELL @ rotation),
        (POSITIONS, -CHARGES, CELL),
        (POSITIONS, CHARGES, CELL[::-1]),
        (POSITIONS, CHARGES, basis @ CELL),
    ):
        assert ewald.energy(*arguments) == pytest.approx(energy, rel=1e-12)


def test_supercell():
    atoms = Atoms("HHeBe", POSITIONS, cell=CELL, pbc=True) * (3, 1, 2)
    energy = ewald.energy(atoms.positions, np.tile(CHARGES, 6), np.array(atoms.cell))
    assert energy == pytest.approx(6 * ewald.energy(POSITIONS, CHARGES, CELL), rel=1e-12)


def test_homogeneous_functions():
    """Of degree -1 in all lengths, 2 in the charges: Euler's relations; no net force; no torque."""
    inputs = positions, charges, cell = leaf(POSITIONS), leaf(CHARGES), leaf(CELL)
    energy = ewald.energy(*inputs)
    slopes = torch.autograd.grad(energy, inputs)
    lengths = (slopes[0] * positions).sum() + (slopes[2] * cell).sum()
    assert lengths.item() == pytest.approx(-energy.item(), rel=1e-12)
    assert (slopes[1] * charges).sum().item() == pytest.approx(2 * energy.item(), rel=1e-12)
    torch.testing.assert_close(slopes[0].sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    strain = positions.detach().T @ slopes[0] + cell.detach().T @ slopes[2]
    torch.testing.assert_close(strain, strain.T, rtol=1e-12, atol=1e-11)


def test_gradients():
    inputs = leaf(POSITIONS), leaf(CHARGES), leaf(CELL)
    assert gradcheck(ewald.energy, inputs)
    assert gradgradcheck(ewald.energy, inputs, fast_mode=True)


def test_chunks(monkeypatch):
    atoms = Atoms("H10", scaled_positions=RNG.uniform(0, 1, (10, 3)), cell=CELL, pbc=True)
    inputs = leaf(atoms.positions), leaf(RNG.uniform(1, 4, 10)), leaf(CELL)
    whole = ewald.energy(*inputs)
    monkeypatch.setattr(ewald, "_CHUNK", 150)
    monkeypatch.setattr(ewald, "_CHUNK_OF_SEARCH", 2000)
    parts = ewald.energy(*inputs)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-13)
    torch.testing.assert_close(*(torch.autograd.grad(item, inputs) for item in (whole, parts)), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("n_boxes", [(3, 3, 3), (3, 4, 5)])
def test_pairs_by_boxes(n_boxes):
    """The same pairs, images and all, as those of a search through all; atoms also at the faces of boxes."""
    cell, n_atoms = torch.tensor(np.diag([3.0, 4.0, 5.0]) + 0.4 * CELL), 150
    alpha = 1.0001 * float((6 * torch.tensor(n_boxes) / ewald._heights(cell)).max())
    boxes = ewald._boxes(cell, torch.tensor(alpha)).int().tolist()
    assert min(boxes) >= 3
    scaled = torch.tensor(RNG.uniform(0, 1, (n_atoms, 3)))
    scaled[:9] = torch.tensor(RNG.integers(0, 3, (9, 3))) / 3
    scaled[9] = 1.0  # rounding of -1e-20 - floor(-1e-20)
    rows = []
    for pairs in (
        ewald._pairs_by_boxes(boxes, scaled, cell, alpha, overlap=True),
        ewald._close_pairs(scaled, cell, alpha, overlap=True),
    ):
        table = torch.cat([pairs[0][:, None], pairs[1][:, None], pairs[2].long()], dim=1)
        swapped = table[:, :1] > table[:, 1:2]  # (i, j, shift) is (j, i, -shift)
        other = torch.cat([table[:, 1:2], table[:, :1], -table[:, 2:]], dim=1)
        rows.append(sorted(torch.where(swapped, other, table).tolist()))
    assert rows[0] == rows[1] and len(rows[0]) > 200


def test_many_points_by_a_mesh(monkeypatch):
    """Energy to 1e-9, and its slopes to 1e-8, of those of the sums without mesh and boxes."""
    atoms = bulk("Al", cubic=True) * (4, 4, 4)
    atoms.rattle(0.2, seed=3)
    inputs = leaf(atoms.positions), leaf(RNG.uniform(2, 4, len(atoms))), leaf(np.array(atoms.cell) + 0.1 * CELL)

    def everything():
        energy = ewald.energy(*inputs)
        return [energy, *torch.autograd.grad(energy, inputs)]

    monkeypatch.setattr(ewald, "_splitting", lambda n_atoms, cell, beta: 1.3)
    with monkeypatch.context() as context:
        context.setattr(ewald, "_boxes", lambda cell, alpha: torch.zeros(3))
        exact, used = everything(), []
    monkeypatch.setattr(ewald, "_MANY", len(atoms))
    monkeypatch.setattr(ewald.mesh, "cost", lambda n, reach: torch.zeros(reach.shape[:-1]))
    by_boxes = ewald._pairs_by_boxes
    monkeypatch.setattr(ewald, "_pairs_by_boxes", lambda *given, **more: used.append(1) or by_boxes(*given, **more))
    found = everything()
    assert used and found[0].item() != exact[0].item()
    for mine, other, relative in zip(found, exact, (1e-9, 1e-8, 1e-9, 1e-8)):
        torch.testing.assert_close(mine, other, rtol=0, atol=relative * float(other.detach().abs().max()))


# Errors


@pytest.mark.parametrize(
    "positions, charges, cell, message",
    [
        (POSITIONS[[0, 1, 1]], CHARGES, CELL, "positions: got two atoms 0 Å apart, need 0.01 Å; remove the duplicate"),
        ([[0, 0, 0], 3 * CELL[0] - CELL[2] + 1e-3], [1, 1], CELL, "got two atoms 0.0017 Å apart"),
        (np.zeros((1, 3)), [1], np.diag([5, 5, 0.005]), "got two atoms 0.005 Å apart, .* periodic image"),
        (POSITIONS, CHARGES[:2], CELL, r"charges: got shape \[2\], need \[3\]"),
        (POSITIONS[:, :2], CHARGES, CELL, r"positions: got shape \[3, 2\], need \[N, 3\]"),
        (np.zeros((0, 3)), [], CELL, r"positions: got shape \[0, 3\]"),
        (POSITIONS * math.nan, CHARGES, CELL, "positions: got NaN"),
        (POSITIONS, CHARGES * math.nan, CELL, "charges: got NaN"),
        (POSITIONS, CHARGES, 0 * CELL, "cell: got vectors .* of no volume"),
    ],
)
def test_errors(positions, charges, cell, message):
    with pytest.raises(ValueError, match=message):
        ewald.energy(positions, charges, cell)
