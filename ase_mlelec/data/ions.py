"""Charges of ions where no pseudopotential tells them."""

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
