"""Commensurate cells of twisted bilayers."""

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.geometry import find_mic

from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.structures.layers import bonds

Cell = tuple[int, int]  # (i, j) of a hexagonal supercell


class Coincidence(NamedTuple):
    """Supercells of two layers that fit on each other.

    Attributes
    ----------
    lower, upper : (i, j) of the two supercells
    angle : float
        Twist of the upper layer relative to the lower layer, degrees in (-30, 30].
    strains : (lower, upper)
        Relative change of length of each layer; equal and opposite in the logarithm.
    n_atoms : int
    """

    lower: Cell
    upper: Cell
    angle: float
    strains: tuple[float, float]
    n_atoms: int


def commensurate(m: int, r: int) -> tuple[Cell, Cell]:
    """Supercells ((i, j), (k, l)) of two equal layers that are commensurate without strain.

    cos(angle) = (3m² + 3mr + r²/2)/(3m² + 3mr + r²); (30, 1) gives 1.08 degrees, near the magic angle of twisted bilayer
    graphene. With the two supercells exchanged the twist has the opposite sign.

    Parameters
    ----------
    m, r : int, positive and without a common divisor

    Raises
    ------
    ValueError
        For other numbers.

    References
    ----------
    Lopes dos Santos et al. 2012, Phys. Rev. B 86, 155449.

    Examples
    --------
    >>> commensurate(1, 1)
    ((1, 2), (2, 1))
    """
    if not (m >= 1 and r >= 1 and np.gcd(m, r) == 1):
        raise ValueError(f"m, r: got {m} and {r}, need positive integers without a common divisor; use a smaller pair")
    if r % 3:
        return (m, m + r), (m + r, m)
    return (m + r // 3, r // 3), (r // 3, m + r // 3)


@formerly_positional("tolerance", "max_strain", "max_atoms")
def coincidences(
    lower: Atoms,
    upper: Atoms,
    angle: float,
    *,
    tolerance: float = 0.1,
    max_strain: float = 1e-6,
    max_atoms: int = 12000,
) -> list[Coincidence]:
    """Supercells of two layers with about the wanted twist, the smallest first.

    Parameters
    ----------
    lower, upper : ase.Atoms
        Primitive cells of hexagonal layers.
    angle : float
        Degrees; a turn by 60 degrees makes the same lattice.
    tolerance : float
        Degrees.
    max_strain : float
        Largest strain of either layer; the default admits none.
    max_atoms : int

    Returns
    -------
    list of Coincidence
        An empty one where nothing fits.

    Raises
    ------
    ValueError
        For cells that are not hexagonal.

    Examples
    --------
    >>> from ase.build import graphene
    >>> layer = graphene(a=2.46)
    >>> coincidences(layer, layer, angle=21.79, max_atoms=100)[0].n_atoms
    28
    """
    largest = max_atoms // min(len(lower), len(upper))
    reach = np.arange(int(np.sqrt(largest)) + 2)
    i, j = (grid.ravel() for grid in np.meshgrid(reach[1:], reach, indexing="ij"))  # one sixth of the plane
    cells = i**2 + i * j + j**2
    i, j, cells = (array[cells <= largest] for array in (i, j, cells))
    direction = np.degrees(np.arctan2(np.sqrt(3) * j, 2 * i + j))
    logarithm = 0.5 * np.log(cells)
    mismatch = np.log(_lattice(lower)[0] / _lattice(upper)[0])
    found: dict = {}
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
    a, b, _, _alpha, _beta, gamma = layer.cell.cellpar()
    if abs(a - b) > 1e-3 * a or min(abs(gamma - 60), abs(gamma - 120)) > 0.1 or layer.cell[:2, 2].any():
        raise ValueError(
            f"layer {layer.symbols}: got cell vectors {a:.3f} and {b:.3f} Å with {gamma:.2f} degrees, "
            "need a hexagonal cell in the xy plane; give the primitive cell"
        )
    turn = [[1, 0], [1, 1]] if gamma > 90 else [[1, 0], [0, 1]]
    return a, np.array(turn)


@formerly_positional("vacuum")
def twisted_bilayer(
    lower: Atoms, upper: Atoms, cells: tuple[Cell, Cell], distance: float, *, vacuum: float = 15.0
) -> tuple[Atoms, Coincidence]:
    """Stack two hexagonal layers with a twist; where they do not fit, both are strained onto a common supercell.

    The common length is the geometric mean of the two lengths, so that the strains are equal and opposite. Layers turn
    around the axis z through the origin: give both layers the same origin, or shift one layer for another stacking.

    Parameters
    ----------
    lower, upper : ase.Atoms
        Primitive cells of hexagonal layers (60 or 120 degrees).
    cells : ((i, j), (k, l))
        Supercells from ``commensurate`` or ``coincidences``.
    distance : float, Å
        Distance between the mean heights of the two layers.
    vacuum : float, Å
        Vacuum between the upper layer and the next image of the lower layer.

    Returns
    -------
    tuple
        (ase.Atoms, periodic in three directions, the layer 0 or 1 of each atom as its tag; Coincidence).

    Raises
    ------
    ValueError
        For cells that are not hexagonal, and for layers that come closer than the sum of their radii.
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
        (cells[0][0], cells[0][1]),
        (cells[1][0], cells[1][1]),
        float(_folded(directions[0] - directions[1])),
        (float(side / sides[0] - 1), float(side / sides[1] - 1)),
        len(atoms),
    )


def _check_apart(atoms):
    first, second = bonds(atoms)
    across = atoms.get_tags()[first] != atoms.get_tags()[second]
    if across.any():
        at = int(np.argmax(across))
        gap = find_mic(atoms.positions[second[at]] - atoms.positions[first[at]], atoms.cell, atoms.pbc)[1]
        raise ValueError(
            f"distance: got layers whose atoms {first[at]} and {second[at]} are {gap:.2f} Å apart, as in "
            "a bond; increase the distance, which is between the mean heights of the layers"
        )
