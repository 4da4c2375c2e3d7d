"""From the label that a program gives to an atom to the chemical element: one rule for all readers."""

from ase.data import atomic_numbers

ISOTOPES = {"D": "H", "T": "H"}


def element_of(label: str) -> str:
    """Chemical symbol, e.g. "Si" of "Si", "SI", "si", "Si1", "si_bulk", "SI-2" or "Si.surface".

    Programs take a symbol in any case, followed by what tells atoms of one element apart. The first two letters are
    the symbol where they are one, else the first letter is. D and T are hydrogen where no letter follows: TYPE_1,
    which programs write where they know no element, is none.

    Parameters
    ----------
    label : str

    Raises
    ------
    ValueError
        For labels that begin with no symbol.
    """
    letters = str(label).strip().strip("'\"")[:2]
    for length in (2, 1):
        symbol = letters[:length].capitalize()
        symbol = symbol if letters[1:].isalpha() else ISOTOPES.get(symbol, symbol)
        if len(letters) >= length and symbol.isalpha() and atomic_numbers.get(symbol, 0) > 0:
            return symbol
    raise ValueError(f"the label {str(label)!r} begins with no chemical symbol; write one such as Si, Si1 or Si_bulk")
