"""Twisted bilayers: counts and angles in closed form, bonds of every layer kept, layers found again."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, mx2
from ase.neighborlist import neighbor_list
from small_bilayers import mx2_bilayer

from ase_mlelec.structures.layers import layer_areas, layers
from ase_mlelec.structures.twist import coincidences, commensurate, twisted_bilayer

CARBON = graphene(a=2.46)
MOS2 = mx2("MoS2", a=3.16, thickness=3.13)
WSE2 = mx2("WSe2", a=3.32, thickness=3.36)


@pytest.mark.parametrize("m, r", [(1, 1), (2, 1), (3, 2), (1, 3), (2, 3), (6, 1), (5, 3), (4, 9)])
def test_commensurate_cells(m, r):
    """Number of atoms and angle by the formulas of Lopes dos Santos et al.; all bonds as in the layers, no strain."""
    atoms, found = twisted_bilayer(CARBON, CARBON, commensurate(m, r), 3.35)
    cells = 3 * m * m + 3 * m * r + r * r
    angle = np.degrees(np.arccos((cells - r * r / 2) / cells))
    assert len(atoms) == found.n_atoms == 4 * cells // (1 if r % 3 else 3)
    assert (found.angle - angle + 1) % 60 == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found.strains, 0, atol=1e-12)
    i, d = neighbor_list("id", atoms, 2.0)
    np.testing.assert_allclose(d, 2.46 / np.sqrt(3), atol=1e-9)
    assert (np.bincount(i) == 3).all()
    assert neighbor_list("d", atoms, 3.6).max() < 3.6 and np.ptp(atoms.positions[:, 2]) == pytest.approx(3.35)


def test_twist_is_the_angle_between_bonds():
    """The smallest turn that brings the bonds of the lower layer onto those of the upper one."""
    for cells in (commensurate(3, 1), commensurate(3, 1)[::-1]):
        atoms, found = twisted_bilayer(CARBON, CARBON, cells, 3.35)
        i, vectors = neighbor_list("iD", atoms, 2.0)
        directions = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 60
        lower, upper = (directions[atoms.get_tags()[i] == tag] for tag in (0, 1))
        for values in lower, upper:
            np.testing.assert_allclose((values - values[0] + 30) % 60 - 30, 0, atol=1e-7)
        assert (upper[0] - lower[0] - found.angle + 30) % 60 == pytest.approx(30, abs=1e-7)
    assert found.angle < 0 < twisted_bilayer(CARBON, CARBON, commensurate(3, 1), 3.35)[1].angle


def test_magic_angle():
    """11,164 atoms at 1.08 degrees, found by the angle and by the integers."""
    best = coincidences(CARBON, CARBON, 1.085, tolerance=0.002)[0]
    assert best.n_atoms == 11164 and best.angle == pytest.approx(1.0845, abs=1e-4)
    atoms, found = twisted_bilayer(CARBON, CARBON, commensurate(30, 1), 3.35)
    assert len(atoms) == 11164 and found.angle == pytest.approx(best.angle, abs=1e-9)
    assert atoms.cell.lengths()[0] == pytest.approx(2.46 * np.sqrt(2791))


@pytest.mark.parametrize("cells, n_atoms, angle", [(((6, 0), (5, 1)), 201, 8.948), (((15, 0), (14, 1)), 1308, 3.418)])
def test_layers_of_different_strain(cells, n_atoms, angle):
    """Layers that are stretched already fit as they are: 6a against sqrt(31) a'."""
    size = [i * i + i * j + j * j for i, j in cells]
    upper = mx2("MoS2", a=3.16 * np.sqrt(size[0] / size[1]), thickness=3.13)
    atoms, found = twisted_bilayer(MOS2, upper, cells, 6.3)
    assert len(atoms) == n_atoms and abs(found.angle) == pytest.approx(angle, abs=1e-3)
    np.testing.assert_allclose(found.strains, 0, atol=1e-12)
    atoms, found = twisted_bilayer(MOS2, MOS2, cells, 6.3)
    ratio = np.sqrt(np.sqrt(size[0] / size[1]))
    np.testing.assert_allclose(found.strains, [1 / ratio - 1, ratio - 1], atol=1e-12)
    assert (np.bincount(neighbor_list("i", atoms, 2.6))[atoms.numbers == 42] == 6).all()


def test_heterobilayer():
    """MoS2 under WSe2 without a twist: 5% of misfit are 20 cells under 19; strains as reported are in the bonds."""
    found = coincidences(MOS2, WSE2, 0, tolerance=1e-6, max_strain=2e-3, max_atoms=3000)
    best = found[0]
    assert (best.lower, best.upper) == ((20, 0), (19, 0)) or best.n_atoms < 3 * (400 + 361)
    for pair in found[:3]:
        atoms, built = twisted_bilayer(MOS2, WSE2, (pair.lower, pair.upper), 6.5)
        assert built.n_atoms == pair.n_atoms == len(atoms)
        np.testing.assert_allclose(built.strains, pair.strains, atol=1e-9)
        metals = [atoms[(atoms.get_tags() == tag) & np.isin(atoms.numbers, (42, 74))] for tag in (0, 1)]
        for metal, constant, strain in zip(metals, (3.16, 3.32), pair.strains):
            np.testing.assert_allclose(neighbor_list("d", metal, 3.6), constant * (1 + strain), rtol=1e-9)


def test_search():
    """Sorted by size, within the tolerance; every homobilayer of the formula up to that size is among them."""
    found = coincidences(CARBON, CARBON, 10, tolerance=5, max_atoms=400)
    assert [pair.n_atoms for pair in found] == sorted(pair.n_atoms for pair in found)
    assert all(abs(pair.angle - 10) <= 5 and max(map(abs, pair.strains)) < 1e-6 for pair in found)
    wanted = set()
    for m in range(1, 12):
        for r in range(1, 12):
            if np.gcd(m, r) == 1:
                cells = 3 * m * m + 3 * m * r + r * r
                angle = np.degrees(np.arccos((cells - r * r / 2) / cells))
                size = 4 * cells // (1 if r % 3 else 3)
                wanted |= {round(a, 6) for a in (angle, 60 - angle) if 5 <= a <= 15 and size <= 400}
    assert wanted and wanted == {round(pair.angle, 6) for pair in found}
    assert coincidences(CARBON, CARBON, 10, tolerance=1e-9) == []


# Layers


@pytest.mark.parametrize("shift", [0, 4.0, 11.0])
def test_layers_are_found(shift):
    """Whatever the order of the atoms, the place of the layers in the cell and small displacements."""
    atoms, _ = twisted_bilayer(MOS2, MOS2, ((6, 0), (5, 1)), 6.3)
    atoms.rattle(0.05, seed=1)
    order = np.random.default_rng(0).permutation(len(atoms))
    atoms = atoms[order]
    atoms.positions[:, 2] += shift
    atoms.wrap()
    np.testing.assert_array_equal(layers(atoms), atoms.get_tags())


def test_three_layers():
    atoms, _ = twisted_bilayer(CARBON, CARBON, commensurate(2, 1), 3.35, vacuum=20)
    third = atoms[atoms.get_tags() == 0]
    third.positions[:, 2] += 6.7
    third.set_tags(2)
    atoms += third
    np.testing.assert_array_equal(layers(atoms), atoms.get_tags())


def test_no_layers():
    with pytest.raises(ValueError, match="layers: got C8 in one piece, need layers without bonds between"):
        layers(bulk("C", cubic=True))
    atoms, _ = twisted_bilayer(CARBON, CARBON, commensurate(2, 1), 8.0)
    between = atoms + Atoms("He", [atoms.positions.mean(0)])
    with pytest.raises(ValueError, match="layers: got 3 pieces of 1 to 38 atoms, need layers of similar size"):
        layers(between)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            (CARBON, CARBON, commensurate(2, 1), 1.2),
            "distance: got layers whose atoms .* are 1.* Å apart, as in a bond",
        ),
        (
            (Atoms("C", cell=[2, 3, 10]), CARBON, commensurate(2, 1), 3.35),
            "layer C: got cell vectors 2.000 and 3.000 Å",
        ),
    ],
)
def test_bad_bilayers(arguments, message):
    with pytest.raises(ValueError, match=message):
        twisted_bilayer(*arguments)


@pytest.mark.parametrize("m, r", [(0, 1), (2, 2), (1, -1), (3, 6)])
def test_bad_integers(m, r):
    with pytest.raises(ValueError, match="need positive integers without a common divisor"):
        commensurate(m, r)


def test_single_layer():
    """One layer by its area; two that are bonded have half of it, and a crystal has less."""
    areas = {"MoS2": 8.6 / 3, "C": 2.6}
    for layer, single in (MOS2, True), (CARBON, True), (CARBON * (3, 2, 1), True), (WSE2, False), (bulk("C"), False):
        layer = layer.copy()
        layer.pbc = True
        layer.cell[2] = layer.cell[2] if layer.cell[2].any() else [0, 0, 15.0]
        for known in areas, None:
            if single and known:
                assert (layers(layer, areas=known) == 0).all()
            else:
                with pytest.raises(ValueError, match="in one piece"):
                    layers(layer, areas=known)
    stacked, area = mx2_bilayer(), np.linalg.norm(np.cross(*mx2_bilayer().cell[:2])) / 3
    alone = stacked[stacked.positions[:, 2] < stacked.positions[:, 2].mean()]
    alone.set_cell(1.1 * alone.cell, scale_atoms=False)
    assert layer_areas([alone]) == pytest.approx({"MoS2": 1.21 * area})
    assert layer_areas([alone, stacked]) == pytest.approx({"MoS2": area})
    bonded = CARBON + CARBON
    bonded.positions[2:, 2] += 1.6
    bonded.set_cell([*CARBON.cell[:2], [0, 0, 15.0]])
    with pytest.raises(ValueError, match="in one piece"):
        layers(bonded, areas=areas)
