"""Charges by which dipoles of structures become displacements of centroids."""

from collections.abc import Iterable

from ase import Atoms
from ase.data import atomic_numbers

# closed shells below the s and p electrons of the main groups, with the first and last of these elements
MAIN_GROUPS = (
    (1, 2, 0),
    (3, 10, 2),
    (11, 18, 10),
    (19, 20, 18),
    (31, 36, 28),
    (37, 38, 36),
    (49, 54, 46),
    (55, 56, 54),
    (81, 86, 78),
)


def outer_electrons(symbol: str) -> int | None:
    """Electrons of the outermost s and p shells of an element of the main groups; None for other elements."""
    z = atomic_numbers[symbol]
    return next((z - core for first, last, core in MAIN_GROUPS if first <= z <= last), None)


def formal_charges(structures: Iterable[Atoms]) -> tuple[dict[str, int], dict[str, int]] | None:
    """Charges of ions, and of the electrons at the centers, dict of e by symbol; None where they cannot be told.

    Ions have the charge of their outer electrons, all of which are at the one species that is not hydrogen, the same number
    at each of its atoms, so that structures are neutral.
    """
    symbols = [atoms.get_chemical_symbols() for atoms in structures]
    species = sorted({symbol for each in symbols for symbol in each})
    ions = {symbol: outer_electrons(symbol) for symbol in species}
    heavy = [symbol for symbol in species if symbol != "H"]
    if len(heavy) != 1 or None in ions.values() or not all(heavy[0] in each for each in symbols):
        return None
    known = {symbol: charge for symbol, charge in ions.items() if charge is not None}
    shares = {sum(known[symbol] for symbol in each) / each.count(heavy[0]) for each in symbols}
    share = shares.pop()
    return (known, {heavy[0]: int(share)}) if not shares and share == int(share) else None
