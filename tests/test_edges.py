"""Edges against a brute-force sum over images, and the promise of EdgeCache: reuse without ever missing a pair."""

import itertools
import time

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import InputError
from ase.geometry import complete_cell
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_mlelec.edges import MOST_NEIGHBORS, EdgeCache, Edges, check_density, has_boxes
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms, random_rotation

CELLS = {
    "orthorhombic": np.diag([3.0, 4.5, 6.0]),
    "skewed": np.array([[3.0, 0, 0], [2.6, 2.0, 0], [-2.5, 1.4, 2.5]]),
    "left-handed": np.array([[0, 4.0, 0.3], [3.5, 0.5, 0], [0.2, 0, 5.0]]),
    "needle": np.array([[1.2, 0, 0], [0, 9.0, 0], [0.5, 0.5, 8.0]]),
}
ALL_PBC = list(itertools.product([False, True], repeat=3))


def brute_force(atoms, cutoff):
    """Set of (i, j, n1, n2, n3) of all pairs closer than ``cutoff``: every image that could reach, one by one."""
    vectors = atoms.cell.array[atoms.pbc]
    extent = np.linalg.norm(np.ptp(atoms.positions, axis=0)) + cutoff
    reach = np.zeros(3, dtype=int)
    reach[atoms.pbc] = np.ceil(extent * np.linalg.norm(np.linalg.pinv(vectors), axis=0)) if len(vectors) else 0
    pairs = set()
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        apart = atoms.positions[None] + shift @ (atoms.cell.array * atoms.pbc[:, None]) - atoms.positions[:, None]
        for i, j in zip(*np.nonzero(np.linalg.norm(apart, axis=2) < cutoff)):
            if i != j or any(shift):
                pairs.add((int(i), int(j), *shift))
    return pairs


def found_pairs(edges):
    rows = torch.column_stack([edges.center, edges.neighbor, edges.shift]).tolist()
    assert len(rows) == len(set(map(tuple, rows))), "a pair occurs twice"
    return set(map(tuple, rows))


def assert_consistent(edges, atoms):
    """Sorted by center, vectors from the center to the image of the neighbor."""
    assert bool((edges.center.diff() >= 0).all())
    assert torch.equal(edges.atoms, torch.arange(len(atoms)))
    i, j, shift = edges.center.numpy(), edges.neighbor.numpy(), edges.shift.numpy()
    wanted = atoms.positions[j] + shift @ atoms.cell.array - atoms.positions[i]
    np.testing.assert_allclose(edges.vec.numpy(), wanted, rtol=0, atol=1e-13)  # rounding of numbers below 100 Å


def scattered(cell, pbc, n=4, seed=0):
    """Atoms at random, also outside the cell, never on top of each other."""
    atoms = random_atoms("H" * n, CELLS["orthorhombic"], pbc=False, shortest=0.7, seed=seed)
    atoms.set_cell(cell)
    atoms.pbc = pbc
    atoms.positions += np.random.default_rng(seed).integers(-2, 3, (n, 3)) * 1.7
    return atoms


@pytest.mark.parametrize("pbc", ALL_PBC, ids=lambda pbc: "".join("FT"[p] for p in pbc))
@pytest.mark.parametrize("cell", CELLS)
def test_every_pair(cell, pbc):
    """A cutoff below and one beyond the cell."""
    atoms = scattered(CELLS[cell], pbc)
    for cutoff in (1.9, 4.7):
        edges = Edges.build(System.from_atoms(atoms), cutoff)
        assert found_pairs(edges) == brute_force(atoms, cutoff)
        assert_consistent(edges, atoms)


@pytest.mark.parametrize("pbc", ALL_PBC, ids=lambda pbc: "".join("FT"[p] for p in pbc))
def test_missing_cell_vectors(pbc):
    """Directions without period need no cell vector; one parallel to another does no harm."""
    cell = CELLS["skewed"] * np.array(pbc)[:, None]
    atoms = scattered(cell, pbc, seed=3)
    wanted = brute_force(atoms, 3.4)
    assert found_pairs(Edges.build(System.from_atoms(atoms), 3.4)) == wanted
    if any(pbc) and not all(pbc):
        atoms.cell[~atoms.pbc] = atoms.cell[atoms.pbc][0]
        assert found_pairs(Edges.build(System.from_atoms(atoms), 3.4)) == wanted


@pytest.mark.parametrize("cutoff", [2.0, 7.3])
def test_one_atom_sees_its_images(cutoff):
    atoms = bulk("Al")
    edges = Edges.build(System.from_atoms(atoms), cutoff)
    assert found_pairs(edges) == brute_force(atoms, cutoff)
    assert len(edges.vec) == {2.0: 0, 7.3: 86}[cutoff]  # shells of fcc up to sqrt(3) a = 7.01 Å: 12+6+24+12+24+8


def test_one_atom_alone():
    edges = Edges.build(System.from_atoms(Atoms("H")), 5.0)
    assert edges.vec.shape == (0, 3) and edges.shift.shape == (0, 3) and edges.n_centers == 1


def test_cutoff_is_exclusive():
    """At the cutoff every weight is zero: the pair is left out, one just inside is in."""
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 3.0]])
    assert len(Edges.build(System.from_atoms(atoms), 3.0).vec) == 0
    assert len(Edges.build(System.from_atoms(atoms), np.nextafter(3.0, 4)).vec) == 2


def test_batch_is_the_singles_one_after_the_other():
    images = [scattered(CELLS["skewed"], True, 3), Atoms("H"), scattered(CELLS["needle"], [True, False, False], 5)]
    together, offset, rows = Edges.build(System.from_atoms(images), 3.5), 0, 0
    for image in images:
        alone = Edges.build(System.from_atoms(image), 3.5)
        part = slice(rows, rows + len(alone.vec))
        assert torch.equal(together.center[part] - offset, alone.center)
        assert torch.equal(together.neighbor[part] - offset, alone.neighbor)
        assert torch.equal(together.vec[part], alone.vec)
        offset, rows = offset + len(image), part.stop
    assert rows == len(together.vec) and together.n_centers == offset


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 100])
def test_chunks_fit_together(size):
    edges = Edges.build(System.from_atoms([scattered(CELLS["skewed"], True, 3), Atoms("H4", 9 * np.eye(4, 3))]), 3.5)
    parts = list(edges.chunks(size))
    sizes = [len(part.atoms) for _, part in parts]
    assert sum(sizes) == 7 and max(sizes) <= size and max(sizes) - min(sizes) <= 1
    assert len(sizes) % 2 == 0 or len(sizes) in (1, 7)
    assert torch.equal(torch.cat([part.atoms[part.center] for _, part in parts]), edges.center)
    for name in ("neighbor", "shift", "vec"):
        assert torch.equal(torch.cat([getattr(part, name) for _, part in parts]), getattr(edges, name))
    assert all(torch.equal(edges.vec[rows], part.vec) for rows, part in parts)


def test_vectors_carry_the_gradient():
    """d/dr of sum w.vec collects w at neighbors minus w at centers; a strain deforms every vector."""
    system = System.from_atoms(scattered(CELLS["left-handed"], True))
    positions = system.positions.requires_grad_(True)
    strain = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    edges = Edges.build(system.strained(strain), 3.0)
    weights = torch.randn(edges.vec.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    of_positions, of_strain = torch.autograd.grad((weights * edges.vec).sum(), [positions, strain])
    wanted = torch.zeros_like(positions).index_add(0, edges.neighbor, weights).index_add(0, edges.center, -weights)
    np.testing.assert_allclose(of_positions, wanted, rtol=0, atol=1e-12)  # sums of tens of numbers of order one
    np.testing.assert_allclose(of_strain[0], edges.vec.detach().T @ weights, rtol=0, atol=1e-12)


def test_float32_finds_the_same_pairs():
    atoms = scattered(CELLS["skewed"], True)
    single = Edges.build(System.from_atoms(atoms, torch.float32), 4.7)
    assert single.vec.dtype == torch.float32
    assert found_pairs(single) == brute_force(atoms, 4.7)


@pytest.mark.parametrize("cutoff", [0.04, 0.5])
def test_nothing_within_the_cutoff(cutoff):
    edges = Edges.build(System.from_atoms(bulk("Al", cubic=True)), cutoff)
    assert len(edges.vec) == 0 and edges.cutoff == cutoff


@pytest.mark.parametrize(
    "atoms",
    [Atoms("H2", [[0, 0, 0], [0, 0, 0.01]]), Atoms("H2", [[0, 0, 0], [3, 3, 3]], cell=[3, 3, 3], pbc=True)],
    ids=["close", "image"],
)
def test_overlap(atoms):
    with pytest.raises(InputError, match=r"atoms 0 and 1 overlap \(0\.0\d\d Å apart\); remove one of them or check"):
        Edges.build(System.from_atoms(atoms), 4.0)


# Points in space as centers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pbc", ALL_PBC, ids=lambda pbc: "".join("FT"[p] for p in pbc))
@pytest.mark.parametrize("cell", CELLS)
def test_every_atom_around_points(cell, pbc):
    """Points inside and outside of the cell, one of them on an atom, which is its neighbor too."""
    atoms = scattered(CELLS[cell], pbc)
    points = np.vstack([np.random.default_rng(5).uniform(-6, 8, (3, 3)), atoms.positions[2:3]])
    together = atoms + Atoms("X4", points)
    for cutoff in (1.9, 4.7):
        edges = Edges.build(System.from_atoms(atoms), cutoff, centers=torch.as_tensor(points))
        wanted = {(i - 4, j, *shift) for i, j, *shift in brute_force(together, cutoff) if i >= 4 > j}
        assert found_pairs(edges) == wanted and edges.n_centers == 4
        assert edges.atoms.tolist() == [-1] * 4 and bool((edges.center.diff() >= 0).all())
        i, j = edges.center.numpy(), edges.neighbor.numpy()
        expected = atoms.positions[j] + edges.shift.numpy() @ atoms.cell.array - points[i]
        np.testing.assert_allclose(edges.vec.numpy(), expected, rtol=0, atol=1e-13)


def test_points_carry_the_gradient():
    """Points at fixed fractional coordinates: a pair vector deforms like one between atoms under strain."""
    atoms = scattered(CELLS["left-handed"], True)
    system, fractional = (
        System.from_atoms(atoms),
        torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    strain = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    strained = system.strained(strain)
    edges = Edges.build(strained, 3.0, centers=fractional @ strained.cell[0])
    weights = torch.randn(edges.vec.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (of_strain,) = torch.autograd.grad((weights * edges.vec).sum(), strain)
    np.testing.assert_allclose(of_strain[0], edges.vec.detach().T @ weights, rtol=0, atol=1e-12)


def test_no_points_and_too_many_structures():
    system = System.from_atoms(scattered(CELLS["skewed"], True))
    assert Edges.build(system, 3.0, centers=torch.zeros(0, 3, dtype=torch.float64)).vec.shape == (0, 3)
    with pytest.raises(InputError, match="got 2 structures with centers; give centers of one structure at a time"):
        Edges.build(System.from_atoms([Atoms("H"), Atoms("H")]), 3.0, centers=torch.zeros(1, 3))


# EdgeCache ---------------------------------------------------------------------------------------------------------

CUTOFF = 3.1


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    pbc=st.sampled_from(ALL_PBC),
    cell=st.sampled_from(sorted(CELLS)),
    skin=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    step=st.sampled_from([0.0, 0.01, 0.1]),
    strain=st.sampled_from([0.0, 0.005, 0.05]),
)
def test_cache_never_misses_a_pair(seed, pbc, cell, skin, step, strain):
    """A walk of atoms and cell, as in a run at constant pressure, whatever their size."""
    atoms, cache = scattered(CELLS[cell], pbc, seed=seed % 7), EdgeCache(CUTOFF, skin)
    generator = np.random.default_rng(seed)
    for _ in range(6):
        atoms.positions += generator.normal(0, 1, atoms.positions.shape) * step
        atoms.set_cell(
            atoms.cell.array @ (np.eye(3) + strain * generator.normal(0, 1, (3, 3))),
            scale_atoms=bool(generator.integers(2)),
        )
        system = System.from_atoms(atoms)
        try:
            fresh = Edges.build(system, CUTOFF)
        except InputError:  # walked into each other
            return
        assert found_pairs(cache.edges(system)) == found_pairs(fresh)
        assert_consistent(cache.edges(system), atoms)


@pytest.mark.parametrize("step, builds", [(0.124, 1), (0.126, 2)])
def test_cache_reuses_as_long_as_it_is_safe(step, builds):
    """Two atoms that run into each other may go a quarter of the skin each, twice; then nothing is guaranteed."""
    cache = EdgeCache(CUTOFF, 0.5)
    for k in range(3):
        cache.edges(System.from_atoms(Atoms("H2", [[k * step, 0, 0], [CUTOFF + 0.5 - k * step, 0, 0]])))
    assert cache.n_builds == builds


def test_worst_case_is_found():
    """A pair just outside the list comes within the cutoff by moving and by compression: both are seen in time."""
    cache, cell = EdgeCache(CUTOFF, 0.5), np.eye(3) * 20
    for squeeze in np.linspace(0, 0.2, 41):
        atoms = Atoms("H2", [[0, 0, 0], [CUTOFF + 0.5001, 0, 0]], cell=cell, pbc=True)
        atoms.set_cell(cell * (1 - squeeze), scale_atoms=True)
        atoms.positions[0, 0] += squeeze
        atoms.positions[1, 0] -= squeeze
        system = System.from_atoms(atoms)
        assert found_pairs(cache.edges(system)) == found_pairs(Edges.build(system, CUTOFF))
    assert cache.n_builds < 41


def test_cache_is_reused_under_pressure():
    """Small changes of the cell, and turning it by any angle, need no new list."""
    atoms, cache = scattered(CELLS["skewed"], True), EdgeCache(CUTOFF, 0.5)
    generator = np.random.default_rng(0)
    for _ in range(10):
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + generator.normal(0, 0.002, (3, 3))), scale_atoms=True)
        cache.edges(System.from_atoms(atoms))
    assert cache.n_builds == 1
    rotation = random_rotation()
    atoms.set_cell(atoms.cell.array @ rotation.T, scale_atoms=True)
    assert found_pairs(cache.edges(System.from_atoms(atoms))) == brute_force(atoms, CUTOFF)
    assert cache.n_builds == 1


@pytest.mark.parametrize("change", ["one atom less", "pbc", "wrapped", "another structure"])
def test_cache_notices_other_structures(change):
    atoms, cache = scattered(CELLS["skewed"], True), EdgeCache(CUTOFF, 0.5)
    cache.edges(System.from_atoms(atoms))
    if change == "one atom less":
        del atoms[1]
    elif change == "pbc":
        atoms.pbc = [True, False, True]
    elif change == "wrapped":
        atoms.wrap()
    else:
        atoms = scattered(CELLS["needle"], True, seed=5)
    assert found_pairs(cache.edges(System.from_atoms(atoms))) == brute_force(atoms, CUTOFF)
    assert cache.n_builds == 2


def test_some_of_the_centers():
    """The same pairs in the same order, counted among the chosen centers."""
    system = System.from_atoms(random_atoms("Si4O3", cell=[4.7, 6.0, 5.5]))
    edges, rows = Edges.build(system, 4.0), torch.tensor([1, 4, 6])
    part = edges.at_centers(rows)
    keep = torch.isin(edges.center, rows)
    assert torch.equal(part.atoms, rows) and torch.equal(rows[part.center], edges.center[keep])
    for name in ("neighbor", "shift", "vec"):
        assert torch.equal(getattr(part, name), getattr(edges, name)[keep])
    assert edges.at_centers(rows[:0]).n_centers == len(edges.at_centers(rows[:0]).center) == 0


@pytest.mark.parametrize(
    "cell, pbc",
    [
        ([5.4, 5.4, 0.01], True),
        ([0.54, 0.54, 0.54], True),
        ([5.4, 0.001, 50], [True, True, False]),
        ([5.4e-6] * 3, True),
        ([[5.4, 0, 0], [5.4, 1e-3, 0], [0, 0, 5.4]], True),
    ],
)
def test_cells_denser_than_matter_are_refused_before_pairs_are_listed(cell, pbc):
    system = System.from_atoms(Atoms("Si8", np.random.default_rng(0).random((8, 3)), cell=cell, pbc=pbc))
    start = time.perf_counter()
    for centers in (None, torch.zeros(1, 3, dtype=torch.float64)):
        with pytest.raises(InputError, match="denser than any matter; check the cell"):
            Edges.build(system, 6.0, centers=centers)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("way", [[[1, 0, 0], [3, 1, 0], [2, 4, 1]], [[1, 0, 0], [0, 1, 0], [30, -20, 1]]])
@pytest.mark.parametrize("pbc", [True, [True, True, False]])
def test_oblique_cells_of_usual_density(way, pbc):
    """The same crystal by other vectors has the same distances, from atoms and from points."""
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    if pbc is not True:
        atoms.cell[2], way = [0, 0, 9], [[1, 0, 0], [7, 1, 0], [0, 0, 1]]
    atoms.pbc = pbc
    oblique = atoms.copy()
    oblique.set_cell(np.array(way) @ atoms.cell.array)
    points = torch.tensor([[0.3, 0.2, 0.1]], dtype=torch.float64)
    for centers in (None, points):
        found = [Edges.build(System.from_atoms(each), 6.0, centers=centers) for each in (atoms, oblique)]
        first, second = (each.vec.norm(dim=1).sort().values for each in found)
        assert len(first) > 10
        torch.testing.assert_close(first, second, rtol=0, atol=1e-9)


def test_cells_that_are_too_oblique_are_refused():
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.set_cell(np.array([[1, 0, 0], [60, 1, 0], [0, 60, 1]]) @ atoms.cell.array)
    with pytest.raises(InputError, match="nearly in one plane, .* give the same crystal with shorter vectors"):
        Edges.build(System.from_atoms(atoms), 6.0)


def test_the_number_of_neighbors_is_estimated_well():
    """Matter of all kinds stays far below the limit, and the estimate is what is counted then."""
    for atoms in (bulk("Si", cubic=True), bulk("C", cubic=True), bulk("Si", a=5.43 / 2), molecule("C6H6")):
        system = System.from_atoms(atoms)
        check_density(atoms.positions, atoms.cell.array, atoms.pbc, 6.0, len(atoms))
        assert len(Edges.build(system, 6.0).center) / len(atoms) < MOST_NEIGHBORS / 5


@pytest.mark.parametrize(
    "cell, pbc, apart",
    [
        ([1600, 1600, 7], True, 0),
        ([1600, 1600, 0], [True, True, False], 0),
        ([4.7, 6e5, 5.5], True, 0),
        ([0, 0, 0], False, 3e7),
        ([1e6, 0, 0], [True, False, False], 3),
    ],
)
@pytest.mark.slow
def test_cells_that_vesin_cannot_sort_into_boxes(cell, pbc, apart):
    """Its process dies there; the pairs are those of ASE, where the two far atoms of a molecule are less far."""
    rng = np.random.default_rng(0)
    atoms = Atoms("Si6O6", rng.uniform(-3, 6, (12, 3)) / [1, 1, 2], cell=cell, pbc=pbc)
    near = atoms.copy()
    atoms.positions[:2, 2] += apart
    assert not has_boxes(atoms.positions, complete_cell(atoms.cell.array * atoms.pbc[:, None]), atoms.pbc, 4.0)
    near.positions[:2, 2] += min(apart, 100)
    i, j, shift = neighbor_list("ijS", near, 4.0)
    found = Edges.build(System.from_atoms(atoms), 4.0)
    assert len(i) and sorted(zip(i.tolist(), j.tolist(), shift.tolist())) == sorted(
        zip(found.center.tolist(), found.neighbor.tolist(), found.shift.tolist())
    )
