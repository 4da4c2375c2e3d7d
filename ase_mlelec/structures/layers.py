"""Assignment of atoms to the layers of a structure."""

from collections.abc import Iterable, Mapping

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ase_mlelec.deprecated import formerly_positional

_BOND = 1.2  # atoms closer than this times the sum of their covalent radii are bonded
_SAME = 0.3  # logarithm of areas per atom; two layers in one piece have half the area, 0.7


def bonds(atoms: Atoms) -> tuple[NDArray, NDArray]:
    """Return the atoms (i, j) of all bonds, each bond in both directions."""
    radii = _BOND * covalent_radii[atoms.numbers]
    return neighbor_list("ij", atoms, radii.tolist())


@formerly_positional("areas")
def layers(atoms: Atoms, *, areas: Mapping[str, float] | None = None) -> NDArray:
    """Find the layer of each atom: atoms that are connected by bonds form a layer.

    Parameters
    ----------
    atoms : ase.Atoms
        Layers parallel to the first two cell vectors, in any order and shift.
    areas : dict of float, Å^2 per atom by formula
        Areas of single layers. A structure that is connected in one piece of such an area, without bonds to the next cell
        along the third cell vector, is a single layer.

    Returns
    -------
    int array [N]
        0 for the lowest layer, which is the layer above the widest gap.

    Raises
    ------
    ValueError
        For a structure in which bonds connect all atoms, and for small pieces, such as molecules, that are no layers.

    Examples
    --------
    >>> from ase.build import graphene
    >>> bilayer = graphene(a=2.46, vacuum=8.0)
    >>> upper = bilayer.copy()
    >>> upper.translate((0, 0, 3.35))
    >>> layers(bilayer + upper).tolist()
    [0, 0, 1, 1]
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


def layer_areas(structures: Iterable[Atoms]) -> dict[str, float]:
    """Find the area per atom, Å^2, of layers, dict by formula, for the argument ``areas`` of ``layers``.

    The areas come from structures with several layers, if there are any, or else from all structures.

    Parameters
    ----------
    structures : iterable of ase.Atoms
        Without a stack of layers among them, every connected piece counts as one layer.
    """
    beside: dict[str, list] = {}
    alone: dict[str, list] = {}
    for atoms in structures:
        n_parts, part = _pieces(atoms)
        for k in range(n_parts):
            layer = atoms[part == k]
            area = np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])) / len(layer)
            (beside if n_parts > 1 else alone).setdefault(formula_of(layer.symbols), []).append(float(area))
    return {formula: float(np.mean(areas)) for formula, areas in (alone | beside).items()}


def formula_of(symbols: Iterable[str]) -> str:
    """Reduced formula of a layer, such as "MoS2", from the chemical symbols of all its atoms."""
    return Formula.from_list(list(symbols)).reduce()[0].format("hill")


def _pieces(atoms):
    first, second = bonds(atoms)
    return connected_components(coo_array((np.ones(len(first)), (first, second)), (len(atoms),) * 2), False)


def _is_layer(atoms, areas):
    area = np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])) / len(atoms)
    wanted = areas.get(formula_of(atoms.symbols))
    return wanted is not None and abs(np.log(area / wanted)) < _SAME and _pieces(atoms * (1, 1, 2))[0] == 2
