"""Layered crystals: commensurate twisted bilayers of hexagonal layers, and which atom is in which layer.

Lattice vectors a1, a2 enclose 60 degrees here, whichever the layer was given with.  A supercell (i, j) has the vectors
i a1 + j a2 and the same turned by 60 degrees, and i² + i j + j² primitive cells.
"""

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.data import covalent_radii
from ase.formula import Formula
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_BOND = 1.2  # atoms closer than this times the sum of their covalent radii are bonded
_SAME = 0.3  # logarithm of areas per atom; two layers in one piece have half the area, 0.7


class Coincidence(NamedTuple):
    """Supercells of two layers that fit on each other.

    lower, upper : (i, j) of the two supercells
    angle : float, degrees in (-30, 30], the twist of the upper layer against the lower one
    strains : (lower, upper), change of length of each layer over its length; equal and opposite in the logarithm
    n_atoms : int
    """

    lower: tuple
    upper: tuple
    angle: float
    strains: tuple
    n_atoms: int


def commensurate(m, r):
    """Supercells ((i, j), (k, l)) of two equal layers that are commensurate without strain.

    cos(angle) = (3m² + 3mr + r²/2)/(3m² + 3mr + r²); (30, 1) are the 1.08 degrees of twisted bilayer graphene.  The
    other way round the layers are turned to the other side.

    m, r : int, positive and without a common divisor

    Raises ValueError for other numbers.

    Source: Lopes dos Santos et al. 2012, Phys. Rev. B 86, 155449.
    """
    if not (m >= 1 and r >= 1 and np.gcd(m, r) == 1):
        raise ValueError(f"m, r: got {m} and {r}, need positive integers without a common divisor; use a smaller pair")
    if r % 3:
        return (m, m + r), (m + r, m)
    return (m + r // 3, r // 3), (r // 3, m + r // 3)


def coincidences(lower, upper, angle, tolerance=0.1, max_strain=1e-6, max_atoms=12000):
    """Supercells of two layers with about the wanted twist, the smallest first.

    lower, upper : ase.Atoms, primitive cells of hexagonal layers
    angle : float, degrees; a turn by 60 degrees makes the same lattice
    tolerance : float, degrees
    max_strain : float, of either layer; the default admits none
    max_atoms : int

    Returns list of Coincidence; an empty one where nothing fits.

    Raises ValueError for cells that are not hexagonal.
    """
    largest = max_atoms // min(len(lower), len(upper))
    reach = np.arange(int(np.sqrt(largest)) + 2)
    i, j = (grid.ravel() for grid in np.meshgrid(reach[1:], reach, indexing="ij"))  # one sixth of the plane
    cells = i**2 + i * j + j**2
    i, j, cells = (array[cells <= largest] for array in (i, j, cells))
    direction = np.degrees(np.arctan2(np.sqrt(3) * j, 2 * i + j))
    logarithm = 0.5 * np.log(cells)
    mismatch = np.log(_lattice(lower)[0] / _lattice(upper)[0])
    found = {}
    for a in range(len(i)):
        stretch = 0.5 * (logarithm - logarithm[a] - mismatch)  # of the lower layer; the upper one has the opposite
        twist = _folded(direction[a] - direction)
        n_atoms = cells[a] * len(lower) + cells * len(upper)
        good = (
            (abs(_folded(twist - angle)) <= tolerance)
            & (abs(np.expm1(abs(stretch))) <= max_strain)
            & (n_atoms <= max_atoms)
        )
        for b in np.flatnonzero(good):
            pair = Coincidence(
                (int(i[a]), int(j[a])),
                (int(i[b]), int(j[b])),
                float(twist[b]),
                (float(np.expm1(stretch[b])), float(np.expm1(-stretch[b]))),
                int(n_atoms[b]),
            )
            key = (round(pair.angle, 9), round(pair.strains[0], 9))
            if key not in found or pair.n_atoms < found[key].n_atoms:  # not the multiples of a smaller cell
                found[key] = pair
    return sorted(found.values(), key=lambda pair: (pair.n_atoms, abs(pair.angle - angle)))


def _folded(angle):
    """Degrees in (-30, 30]."""
    return 30 - (30 - angle) % 60


def _lattice(layer):
    """(lattice constant, a1 and a2 with 60 degrees between them in terms of the cell's vectors)."""
    a, b, _, alpha, beta, gamma = layer.cell.cellpar()
    if abs(a - b) > 1e-3 * a or min(abs(gamma - 60), abs(gamma - 120)) > 0.1 or layer.cell[:2, 2].any():
        raise ValueError(
            f"layer {layer.symbols}: got cell vectors {a:.3f} and {b:.3f} Å with {gamma:.2f} degrees, "
            "need a hexagonal cell in the xy plane; give the primitive cell"
        )
    turn = [[1, 0], [1, 1]] if gamma > 90 else [[1, 0], [0, 1]]
    return a, np.array(turn)


def twisted_bilayer(lower, upper, cells, distance, vacuum=15.0):
    """Two hexagonal layers on each other, turned and, where they do not fit, strained onto a common supercell.

    The common length is the geometric mean of the two, so that the strains are equal and opposite.  Where atoms lie on
    the axis z through the origin they stay there: give both layers the same origin, or shift one for another stacking.

    lower, upper : ase.Atoms, primitive cells of hexagonal layers (60 or 120 degrees)
    cells : ((i, j), (k, l)), of ``commensurate`` or ``coincidences``
    distance : float, Å, between the mean heights of the two layers
    vacuum : float, Å, above the upper layer until the next lower one

    Returns (ase.Atoms, periodic in three directions, the layer 0 or 1 of each atom as its tag; Coincidence).

    Raises ValueError for cells that are not hexagonal, and for layers that come closer than the sum of their radii.
    """
    sides, parts = [], []
    for layer, (i, j) in zip((lower, upper), cells):
        length, turn = _lattice(layer)
        sides.append(length * np.sqrt(i * i + i * j + j * j))
        flat = layer.copy()
        flat.pbc = True
        flat.cell[2] = [0, 0, 100.0]
        flat.positions[:, 2] -= flat.positions[:, 2].mean()
        expansion = np.eye(3, dtype=int)
        expansion[:2, :2] = np.array([[i, j], [-j, i + j]]) @ turn
        parts.append(make_supercell(flat, expansion, wrap=False))
    side = np.sqrt(sides[0] * sides[1])
    bottom, top = parts[0].positions[:, 2].min(), distance + parts[1].positions[:, 2].max()
    vectors = np.array([[side, 0, 0], [side / 2, side * np.sqrt(3) / 2, 0], [0, 0, 100.0]])
    for tag, part in enumerate(parts):
        part.set_cell(vectors, scale_atoms=True)  # turns and strains at once: the fractions stay
        part.positions[:, 2] += tag * distance - bottom + 0.5 * vacuum
        part.set_tags(tag)
    atoms = Atoms(parts[0])
    atoms += parts[1]
    atoms.cell[2] = [0, 0, top - bottom + vacuum]
    atoms.wrap(pbc=(True, True, False))
    _check_apart(atoms)
    directions = [np.degrees(np.arctan2(np.sqrt(3) * j, 2 * i + j)) for i, j in cells]
    return atoms, Coincidence(
        tuple(cells[0]),
        tuple(cells[1]),
        float(_folded(directions[0] - directions[1])),
        tuple(float(side / own - 1) for own in sides),
        len(atoms),
    )


def _check_apart(atoms):
    first, second = _bonds(atoms)
    across = atoms.get_tags()[first] != atoms.get_tags()[second]
    if across.any():
        at = int(np.argmax(across))
        gap = find_mic(atoms.positions[second[at]] - atoms.positions[first[at]], atoms.cell, atoms.pbc)[1]
        raise ValueError(
            f"distance: got layers whose atoms {first[at]} and {second[at]} are {gap:.2f} Å apart, as in "
            "a bond; increase the distance, which is between the mean heights of the layers"
        )


def _bonds(atoms):
    radii = _BOND * covalent_radii[atoms.numbers]
    return neighbor_list("ij", atoms, radii.tolist())


def layers(atoms, areas=None):
    """Which layer each atom is in, from the structure alone: atoms that bonds connect are one layer.

    atoms : ase.Atoms, layers parallel to the first two cell vectors, in any order and shift
    areas : dict of float, Å^2 per atom by formula; what is in one piece of this area, without bonds to the next cell
        along the third cell vector, is a single layer

    Returns int array [N], 0 for the lowest layer; lowest is what lies above the widest gap.

    Raises ValueError where bonds connect everything, and where small pieces such as molecules are no layers.
    """
    n_parts, part = _pieces(atoms)
    if n_parts < 2 and not _is_layer(atoms, areas or {}):
        raise ValueError(
            f"layers: got {atoms.get_chemical_formula()} in one piece, need layers without bonds between "
            "them; increase their distance"
        )
    height = atoms.cell.scaled_positions(atoms.positions)[:, 2] % 1
    order = np.sort(height)
    gaps = np.diff(np.append(order, order[0] + 1))
    height = (height - order[(np.argmax(gaps) + 1) % len(order)]) % 1
    mean = np.bincount(part, height) / np.bincount(part)
    rank = np.argsort(np.argsort(mean))
    sizes = np.bincount(part)
    if n_parts > 2 and sizes.min() < 0.1 * sizes.max():
        raise ValueError(
            f"layers: got {n_parts} pieces of {sizes.min()} to {sizes.max()} atoms, need layers of "
            "similar size; remove what lies between them"
        )
    return rank[part]


def layer_areas(structures):
    """dict of float, Å^2 per atom by formula, for ``layers``: of layers that others lie beside, or else of all.

    structures : iterable of ase.Atoms; without a single stack, what is in one piece is taken for one layer
    """
    beside, alone = {}, {}
    for atoms in structures:
        n_parts, part = _pieces(atoms)
        for k in range(n_parts):
            layer = atoms[part == k]
            area = np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])) / len(layer)
            (beside if n_parts > 1 else alone).setdefault(formula_of(layer.symbols), []).append(float(area))
    return {formula: float(np.mean(areas)) for formula, areas in (alone | beside).items()}


def formula_of(symbols):
    """Formula of a layer whatever its size, such as "MoS2"; symbols : iterable of chemical symbols of all atoms."""
    return Formula.from_list(list(symbols)).reduce()[0].format("hill")


def _pieces(atoms):
    first, second = _bonds(atoms)
    return connected_components(coo_array((np.ones(len(first)), (first, second)), (len(atoms),) * 2), False)


def _is_layer(atoms, areas):
    area = np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])) / len(atoms)
    wanted = areas.get(formula_of(atoms.symbols))
    return wanted is not None and abs(np.log(area / wanted)) < _SAME and _pieces(atoms * (1, 1, 2))[0] == 2
