"""Checks that readers of files and calculators share."""

import math
import re
from os import PathLike
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError
from numpy.typing import ArrayLike, NDArray

LARGEST = 1e8  # Å, of positions and cells
CLOSEST = 0.05  # Å, of atoms in training data
NO_PERMISSION = "you may not read it; ask its owner, or change its mode with chmod"


def printable(text: object, most: int = 200):
    """Text of a file for a message: one printable line of at most ``most`` letters."""
    text = re.sub(r"\s*[^\S ]\s*", " ", str(text)).strip()
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else f"{text[:most]}..."


def check_finite(path: str | PathLike, what: str, values: ArrayLike, error=ValueError):
    """Return ``values`` unchanged, or refuse NaN and infinity.

    Parameters
    ----------
    path
        File of the values.
    what : str
        Name of the values in the message.
    error : class
        Exception that the reader raises.
    """
    finite = np.isfinite(np.asarray(values, dtype=float))
    if not finite.all():
        place = "" if finite.ndim == 0 else f" (entry {', '.join(str(k + 1) for k in np.argwhere(~finite)[0])})"
        raise error(
            f"{path}: {what} is NaN or infinite{place}; the calculation failed or the file is damaged: "
            "calculate it again"
        )
    return values


def check_count(path: str | PathLike, what: str, count: int, bytes_each: int, error=ValueError) -> int:
    """Return ``count`` as an int, or refuse a count that is too large for the size of the file.

    Parameters
    ----------
    bytes_each
        Smallest number of bytes per item in an uncompressed file; a compressed file (.gz) may hold a thousand times its
        size.
    """
    size = Path(path).stat().st_size * (1100 if str(path).endswith(".gz") else 1)
    if not 0 <= count <= size / bytes_each:
        raise error(
            f"{path}: it claims {max(min(count, 1e300), -1):g} {what}, more than a file of its size can hold; "
            "the file is damaged or cut off: write or copy it again"
        )
    return int(count)


def volume_of(cell: NDArray) -> float:
    """Volume of the cell of three vectors [3, 3]; Python multiplies nine numbers in less time than NumPy is called in."""
    (a, b, c), (d, e, f), (g, h, i) = cell.tolist()
    return abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


def check_atoms(atoms: Atoms) -> None:
    """Refuse structures that no model can evaluate.

    Raises
    ------
    InputError
        Naming cause and remedy.
    """
    if len(atoms) == 0:
        raise InputError("got an empty Atoms object; give at least one atom")
    largest, longest = (float(np.abs(array).max()) for array in (atoms.positions, atoms.cell.array))
    if not math.isfinite(largest):
        finite = np.isfinite(atoms.positions).all(axis=1)
        raise InputError(
            f"positions of atom {int(np.argmin(finite))} are NaN or infinite; "
            "check the last step of the run (time step too long?)"
        )
    if not math.isfinite(longest):
        raise InputError("the cell holds NaN or infinite numbers; set it with atoms.set_cell(...)")
    for what, reach in ("a position", largest), ("a cell vector", longest):
        if reach > LARGEST:
            raise InputError(
                f"{what} reaches {reach:.3g} Å, need at most {LARGEST:g} Å, beyond which "
                "distances lose their digits; check the last step of the run, or move the atoms into the "
                "cell with atoms.wrap()"
            )
    # the smallest singular value is at least the volume over the product of the others
    if atoms.pbc.any() and not volume_of(atoms.cell.array) > 1e-6 * max(1, 3 * longest) * (3 * longest) ** 2:
        spans = np.linalg.svd(atoms.cell.array[atoms.pbc], compute_uv=False)
        if spans.min() < 1e-6 * max(1, spans.max()):
            raise InputError(
                f"pbc is {atoms.pbc.tolist()} but the periodic cell vectors span no volume; "
                "set the cell with atoms.set_cell(...) or pbc=False"
            )
