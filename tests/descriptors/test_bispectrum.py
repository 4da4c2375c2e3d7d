"""Bispectrum against its definition (recursion and Clebsch-Gordan sums), closed forms, symmetry and differences."""

import importlib.util
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import InputError
from ase.neighborlist import neighbor_list

from ase_mlelec.compiled import SWITCH
from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.descriptors.bispectrum import descriptor as of_atoms
from ase_mlelec.descriptors.bispectrum import grid, grid_bispectrum, tables
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing import assert_close, five_point, random_atoms, random_rotation, turned

RFAC0 = 0.99363


@pytest.fixture(
    autouse=True,
    params=[
        pytest.param("0", id="torch"),
        pytest.param(
            "1",
            id="loops",
            marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed"),
        ),
    ],
)
def _each_way(request, monkeypatch):
    """By PyTorch and by compiled loops."""
    monkeypatch.setenv(SWITCH, request.param)


CELL = [[3.1, 0.2, 0], [0.6, 2.8, 0.3], [-0.7, 0.4, 3.5]]
OXIDE = dict(weights={"Si": 1.0, "O": -0.6}, cutoffs={"Si": 3.6, "O": 3.1})


# The definition, term by term


def group_element(vec, cutoff, rfac0, rmin0):
    """(a, b) of a neighbor at ``vec``."""
    (x, y, z), r = -np.asarray(vec), np.linalg.norm(vec)
    z0 = r / np.tan(rfac0 * np.pi * (r - rmin0) / (cutoff - rmin0))
    return np.array([z0 - 1j * z, y - 1j * x]) / np.sqrt(r**2 + z0**2)


def matrices(a, b, twojmax):
    """u_j by recursion in j: the rows 2 mb <= j, and the others from them."""
    u = [np.ones((1, 1), complex)]
    for j in range(1, twojmax + 1):
        new = np.zeros((j + 1, j + 1), complex)
        for mb in range(j // 2 + 1):
            new[mb, :j] += np.sqrt((j - np.arange(j)) / (j - mb)) * np.conj(a) * u[-1][mb]
            new[mb, 1:] -= np.sqrt(np.arange(1, j + 1) / (j - mb)) * np.conj(b) * u[-1][mb]
            signs = (-1.0) ** (mb + np.arange(j + 1))
            new[j - mb, ::-1] = signs * np.conj(new[mb])
        u.append(new)
    return u


def clebsch_gordan(j1, j2, j):
    """<j1 m1 j2 m2 | j m> by Racah's formula: array [j1+1, j2+1, j+1] of doubled orders."""

    def f(twice):
        return math.factorial(twice // 2)

    out = np.zeros((j1 + 1, j2 + 1, j + 1))
    triangle = (j + 1) * f(j + j1 - j2) * f(j - j1 + j2) * f(j1 + j2 - j) / f(j1 + j2 + j + 2)
    for m1 in range(-j1, j1 + 1, 2):
        for m2 in range(max(-j2, -j - m1), min(j2, j - m1) + 1, 2):
            m = m1 + m2
            norm = f(j + m) * f(j - m) * f(j1 - m1) * f(j1 + m1) * f(j2 - m2) * f(j2 + m2)
            terms = [
                (k, j1 + j2 - j - k, j1 - m1 - k, j2 + m2 - k, j - j2 + m1 + k, j - j1 - m2 + k)
                for k in range(0, j1 + j2 - j + 1, 2)
            ]
            total = sum((-1) ** (t[0] // 2) / math.prod(map(f, t)) for t in terms if min(t) >= 0)
            out[(m1 + j1) // 2, (m2 + j2) // 2, (m + j) // 2] = math.sqrt(triangle * norm) * total
    return out


def definition(vecs, cutoffs, weights, twojmax, rfac0=RFAC0, rmin0=0.0, switch=True):
    """Components of one center with neighbors at ``vecs``."""
    total = [np.eye(j + 1, dtype=complex) for j in range(twojmax + 1)]
    for vec, cutoff, weight in zip(vecs, cutoffs, weights):
        r = np.linalg.norm(vec)
        if r >= cutoff:
            continue
        fade = (1 + np.cos(np.pi * (r - rmin0) / (cutoff - rmin0))) / 2 if switch and r > rmin0 else 1.0
        for sum_, u in zip(total, matrices(*group_element(vec, cutoff, rfac0, rmin0), twojmax)):
            sum_ += weight * fade * u
    out = []
    for j1, j2, j in tables.triples(twojmax):
        c = clebsch_gordan(j1, j2, j)
        z = np.einsum("abm,cdn,ac,bd->mn", c, c, total[j1], total[j2], optimize=True)
        out.append(np.sum(np.conj(total[j]) * z).real)
    return np.array(out)


def at_points(descriptor, atoms, points, dtype=torch.float64):
    """Features at points [C, 3], Å."""
    system = System.from_atoms(atoms, dtype)
    with torch.no_grad():
        edges = Edges.build(system, descriptor.cutoff, centers=torch.as_tensor(np.asarray(points), dtype=dtype))
        return descriptor(system, edges).features.numpy()


def oxide(seed=0):
    return random_atoms("Si2O2", cell=CELL, shortest=1.2, seed=seed)


@pytest.mark.parametrize(
    "twojmax, options",
    [
        (1, {}),
        (2, {}),
        (5, {}),
        (6, dict(rmin0=0.7)),
        (7, dict(switch=False)),
        (8, dict(rfac0=0.9)),
        (10, {}),
        (12, dict(rmin0=0.3)),
        (16, {}),
    ],
)
def test_equals_the_definition(twojmax, options):
    """Every twojmax divides the triples among quadrature rules in its own way."""
    vecs = np.random.default_rng(twojmax).normal(size=(9, 3)) * 1.5
    kinds = np.arange(9) % 2
    cutoffs, weights = np.array([3.6, 3.1])[kinds], np.array([1.0, -0.6])[kinds]
    atoms = Atoms(np.array(["Si", "O"])[kinds], vecs + [1, 2, 3])
    descriptor = Bispectrum(["O", "Si"], twojmax, **OXIDE, **options)
    found = at_points(descriptor, atoms, [[1, 2, 3]])[0]
    assert_close(found, definition(vecs, cutoffs, weights, twojmax, **options), 1e-13)


def test_number_and_order_of_components():
    assert [Bispectrum(["Al"], twojmax).n_features for twojmax in (6, 8, 10)] == [30, 55, 91]
    assert tables.triples(2).tolist() == [[0, 0, 0], [1, 0, 1], [1, 1, 2], [2, 0, 2], [2, 2, 2]]


def test_nothing_around():
    """U_j is the identity matrix: B = j + 1."""
    order = tables.triples(10)[:, 2]
    for bzero in (False, True):
        found = at_points(Bispectrum(["H"], bzero=bzero), Atoms("H", [[9.0, 0, 0]]), np.zeros((1, 3)))
        assert_close(found[0] + bzero * (order + 1), order + 1, 1e-14)


@pytest.mark.parametrize("r", [1e-9, 0.3, 2.0, 4.5])
def test_one_neighbor(r):
    """B_(j 0 j) = (1 + w)((j + 1)(1 + w^2) + 2 w sin((j + 1) t)/sin t), with the character of the rotation by 2 t."""
    vec, cutoff, weight = np.array([1.0, -2, 2]) / 3 * r, 4.67637, 0.7
    found = at_points(Bispectrum(["H"], weights=[weight]), Atoms("H", [vec]), np.zeros((1, 3)))[0]
    w, t = weight * (1 + np.cos(np.pi * r / cutoff)) / 2, RFAC0 * np.pi * r / cutoff
    rows = [k for k, (_, j2, _) in enumerate(tables.triples(10)) if j2 == 0]
    order = tables.triples(10)[rows, 2]
    wanted = (1 + w) * ((order + 1) * (1 + w**2) + 2 * w * np.sin((order + 1) * t) / np.sin(t))
    assert_close(found[rows], wanted, 1e-13)


# Grids


@pytest.mark.parametrize(
    "cell", [CELL, np.array(CELL)[[1, 0, 2]], np.diag([1.9, 6.0, 4.0])], ids=["sheared", "left-handed", "needle"]
)
def test_grid_equals_the_definition(cell):
    """Cutoffs beyond the cell, all images by brute force, points in C order."""
    atoms, shape = random_atoms("SiO", cell=cell, shortest=1.2), (2, 3, 2)
    found = grid_bispectrum(atoms, shape, twojmax=4, **OXIDE)
    assert found.shape == (2, 3, 2, 14) and found.dtype == np.float64
    images = np.array(list(np.ndindex(9, 9, 9))) - 4
    places = (atoms.positions + (images @ np.asarray(cell))[:, None]).reshape(-1, 3)
    kinds = np.tile(atoms.symbols == "O", len(images)).astype(int)
    for index in [(0, 0, 0), (1, 2, 1), (0, 1, 1)]:
        vecs = places - np.array(index) / shape @ np.asarray(cell)
        near = np.linalg.norm(vecs, axis=1) < 3.7
        wanted = definition(vecs[near], np.array([3.6, 3.1])[kinds[near]], np.array([1, -0.6])[kinds[near]], 4)
        assert_close(found[index], wanted, 1e-13)


def test_supercell():
    atoms = bulk("Al")
    single = grid_bispectrum(atoms, (3, 2, 2), twojmax=4)
    double = grid_bispectrum(atoms.repeat((1, 2, 3)), (3, 4, 6), twojmax=4)
    assert_close(double, np.tile(single, (1, 2, 3, 1)), 1e-12)


def test_rotation_permutation_and_images():
    atoms, options = oxide(), dict(twojmax=6, **OXIDE)
    wanted = grid_bispectrum(atoms, (2, 2, 3), **options)
    wrapped = atoms.copy()
    wrapped.positions += np.array([[1, 0, -2], [0, 3, 0], [0, 0, 0], [-1, 1, 1]]) @ atoms.cell.array
    for other in (turned(atoms, random_rotation(3)), atoms[[2, 0, 3, 1]], wrapped):
        assert_close(grid_bispectrum(other, (2, 2, 3), **options), wanted, 1e-12)


def test_bricks_chunks_and_blocks_do_not_matter(monkeypatch):
    atoms, shape = oxide(), (5, 4, 7)
    wanted = grid_bispectrum(atoms, shape, twojmax=4, **OXIDE)
    for module, name, value in (
        (grid, "CHUNK", 7),
        (of_atoms, "BLOCK", 5),
        (grid, "BRICKS_AT_ONCE", 3),
        (grid, "BRICK_EDGE", 2.0),
    ):
        monkeypatch.setattr(module, name, value)
        assert_close(grid_bispectrum(atoms, shape, twojmax=4, **OXIDE), wanted, 1e-13)
        descriptor, system = Bispectrum(["O", "Si"], 4), System.from_atoms(atoms)
        indices = torch.cat([chunk.indices for chunk in descriptor.grid_chunks(system, shape)])
        assert indices.sort().values.tolist() == list(range(140))
    assert max(len(chunk.indices) for chunk in descriptor.grid_chunks(system, shape)) < 100


def test_points_equal_the_grid():
    """Grid points as centers of Edges: the same numbers by the pair list, of the one species 0."""
    atoms, shape = oxide(), (2, 3, 2)
    system, descriptor = System.from_atoms(atoms), Bispectrum(["O", "Si"], 5, **OXIDE)
    points = torch.tensor(list(np.ndindex(*shape))).double() / torch.tensor(shape)
    environment = descriptor(system, Edges.build(system, descriptor.cutoff, centers=points @ system.cell[0]))
    assert_close(environment.features, grid_bispectrum(atoms, shape, twojmax=5, **OXIDE).reshape(12, -1), 1e-13)
    assert environment.species.tolist() == [0] * 12


def test_float32():
    atoms, descriptor = oxide(), Bispectrum(["O", "Si"], 10, **OXIDE)
    wanted = grid_bispectrum(atoms, (2, 2, 2), **OXIDE).reshape(8, -1)
    system = System.from_atoms(atoms, torch.float32)
    for chunk in descriptor.grid_chunks(system, (2, 2, 2)):
        found = descriptor.of_chunk(system, chunk)
        assert found.dtype == torch.float32
        assert_close(found, wanted[chunk.indices], 1e-5)


# Gradients


def slopes(descriptor, atoms, shape, step=3e-5):
    """(d/dt by autograd, by differences) of a random sum of features as positions and cell go along random directions.

    The step is small because the switch has a kink in its second derivative.
    """
    system, generator = System.from_atoms(atoms), torch.Generator().manual_seed(1)

    def random(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    move, deform = random(len(atoms), 3), random(1, 3, 3)
    weights = random(math.prod(shape), descriptor.n_features)

    def value(positions, cell):
        now = replace(system, positions=positions, cell=cell)
        return sum(
            (descriptor.of_chunk(now, chunk) * weights[chunk.indices]).sum()
            for chunk in descriptor.grid_chunks(now, shape)
        )

    leaves = [system.positions.clone().requires_grad_(), system.cell.clone().requires_grad_()]
    of_positions, of_cell = torch.autograd.grad(value(*leaves), leaves)
    assert of_positions.isfinite().all() and of_cell.isfinite().all()
    with torch.no_grad():
        numeric = five_point(lambda t: float(value(system.positions + t * move, system.cell + t * deform)), step)
    return float((of_positions * move).sum() + (of_cell * deform).sum()), numeric


def test_radial_sums():
    """Against the formula, with a neighbor list of ASE; one of the points is an atom."""
    atoms, n_radial = oxide(), 4
    points = np.concatenate([atoms.positions[:1], np.random.default_rng(3).uniform(0, 6, (5, 3))])
    species = ["O", "Si"]
    found = at_points(Bispectrum(species, 2, **OXIDE, n_radial=n_radial), atoms, points)[:, -8:]
    for point, row in zip(points, found):
        probe = atoms + Atoms("He", [point], cell=atoms.cell, pbc=True)
        center, neighbor, distance = neighbor_list("ijd", probe, max(OXIDE["cutoffs"].values()))
        wanted = []
        for symbol in species:
            x = distance[(center == len(atoms)) & (probe.symbols[neighbor] == symbol)] / OXIDE["cutoffs"][symbol]
            x = x[x < 1]
            wanted += [((1 - x**2) ** 3 * np.sinc(k * x)).sum() for k in range(n_radial)]
        np.testing.assert_allclose(row, wanted, atol=1e-11)


@pytest.mark.parametrize(
    "options",
    [dict(twojmax=10), dict(twojmax=5, rmin0=0.3), dict(twojmax=3, bzero=True), dict(twojmax=2, n_radial=6)],
    ids=["10", "rmin0", "bzero", "radial"],
)
def test_gradient(options):
    # radial sums have a kink in their third derivative, which an atom at the cutoff of a point may cross
    analytic, numeric = slopes(Bispectrum(["O", "Si"], **OXIDE, **options), oxide(), (2, 3, 2), step=1e-5)
    assert analytic == pytest.approx(numeric, rel=1e-8)


def test_gradient_of_points():
    """Centers that move with the cell: the same gradient as by the grid."""
    atoms, descriptor, shape = oxide(), Bispectrum(["O", "Si"], 4, **OXIDE), (2, 2, 3)
    fractional = torch.tensor(list(np.ndindex(*shape))).double() / torch.tensor(shape)
    results = []
    for by_grid in (True, False):
        system = System.from_atoms(atoms)
        system.positions.requires_grad_(), system.cell.requires_grad_()
        if by_grid:
            chunks = descriptor.grid_chunks(system, shape)
            total = sum((descriptor.of_chunk(system, chunk) ** 2).sum() for chunk in chunks)
        else:
            edges = Edges.build(system, descriptor.cutoff, centers=fractional @ system.cell[0])
            total = (descriptor(system, edges).features ** 2).sum()
        results.append(torch.autograd.grad(total, [system.positions, system.cell]))
    for found, wanted in zip(*results):
        assert_close(found, wanted, 1e-12)


def test_atom_on_a_grid_point():
    """Value and gradient are the limits, where LAMMPS leaves the atom out."""
    atoms = Atoms("H", [[0, 0, 0]], cell=[12, 12, 12], pbc=True)
    found = grid_bispectrum(atoms, (1, 1, 1))[0, 0, 0]
    assert_close(found, 8 * (tables.triples(10)[:, 2] + 1.0), 1e-14)
    crowded = oxide()
    crowded.positions -= crowded.positions[2]
    on_point = grid_bispectrum(crowded, (2, 2, 2), **OXIDE)
    crowded.positions[2] += [1e-8, -1e-8, 0]
    assert_close(grid_bispectrum(crowded, (2, 2, 2), **OXIDE), on_point, 1e-6)
    crowded.positions[2] = 0
    analytic, numeric = slopes(Bispectrum(["O", "Si"], 6, **OXIDE), crowded, (2, 2, 2))
    assert analytic == pytest.approx(numeric, rel=1e-8)


def test_atom_on_a_grid_point_with_rmin0_is_finite():
    descriptor, atoms = Bispectrum(["H"], 4, rmin0=0.5), Atoms("H", [[0, 0, 0]], cell=[5, 5, 5], pbc=True)
    system = System.from_atoms(atoms)
    system.positions.requires_grad_()
    features = torch.cat([descriptor.of_chunk(system, chunk) for chunk in descriptor.grid_chunks(system, (1, 1, 1))])
    assert features.isfinite().all() and torch.autograd.grad(features.sum(), system.positions)[0].isfinite().all()


def test_second_derivatives_are_refused():
    system = System.from_atoms(oxide())
    leaf = system.positions.requires_grad_()
    descriptor = Bispectrum(["O", "Si"], 2)
    features = torch.cat([descriptor.of_chunk(system, chunk) for chunk in descriptor.grid_chunks(system, (1, 1, 2))])
    (first,) = torch.autograd.grad((features**2).sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


# Errors


@pytest.mark.parametrize(
    "atoms, shape, message",
    [
        (Atoms("H", cell=[4, 4, 4], pbc=[True, True, False]), (2, 2, 2), r"got pbc \[True, True, False\], need three"),
        (Atoms("H"), (2, 2, 2), "need three periodic directions for a grid; set atoms.pbc = True and a cell"),
        (bulk("Al"), (2, 2), r"got grid \(2, 2\), need three positive numbers"),
        (bulk("Al"), (2, 0, 2), r"got grid \(2, 0, 2\)"),
    ],
)
def test_errors_of_the_grid(atoms, shape, message):
    with pytest.raises(InputError, match=message):
        grid_bispectrum(atoms, shape)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(twojmax=0), "twojmax: got 0, need 1 to 16"),
        (dict(twojmax=17), "twojmax: got 17"),
        (dict(cutoff=0.0), "cutoffs: got 0.0 Å, need more than 0"),
        (dict(rmin0=5.0), "need more than 0 and than rmin0 = 5.0 Å"),
        (dict(weights={"Cu": 1.0}), "weights: got Cu, need one of Al, Mg; remove it"),
        (dict(n_radial=-1), "n_radial: got -1, need 0 or more"),
        (dict(cutoffs=[4.0]), "cutoffs: got 1 numbers, need 2, one per species"),
    ],
)
def test_errors_of_the_descriptor(options, message):
    with pytest.raises(ValueError, match=message):
        Bispectrum(["Al", "Mg"], **options)


def test_several_structures_have_no_grid():
    system = System.from_atoms([bulk("Al"), bulk("Al")])
    with pytest.raises(InputError, match="got 2 structures, need one; make a grid for each"):
        next(Bispectrum(["Al"], 2).grid_chunks(system, (1, 1, 1)))
