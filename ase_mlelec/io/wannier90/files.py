"""What all readers of Wannier90's files share: their error, the text of a file, numbers, cells."""

import gzip
import io
import re
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_mlelec import units

LENGTHS = {"ang": 1.0, "bohr": units.BOHR}  # unit in the files -> Å
PACKED = 400  # no table of numbers can be compressed further
FOLDED = "images of minimal distance folded in"  # in the first line of Hamiltonians that need no wsvec
LARGEST = 1e6  # eV, Å or lattice vectors; no level is as deep and no cell as large, so that a file is damaged


class Wannier90Error(ValueError):
    """A Wannier90 file or its contents cannot be used; the message names the cause and the remedy."""


def read_text(path: str | PathLike) -> str:
    """Contents of a text file, compressed or not, with lines that end in a newline.

    Raises
    ------
    Wannier90Error
        When it is missing or not text.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise Wannier90Error(f"{path}: no such file; check the name and the folder")
        data = path.read_bytes()
        if path.suffix == ".gz" or data.startswith(b"\x1f\x8b"):
            data = _decompressed(data)
    except (EOFError, OSError, zlib.error) as error:
        raise Wannier90Error(f"{path}: truncated or not text ({error}); copy or write it again") from None
    if b"\0" in data:
        raise Wannier90Error(
            f"{path}: truncated or not text (it holds zero bytes, as binary files and UTF-16 do); "
            "write it again as plain text"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # comments in another encoding, which no Fortran program minds
    return text.replace("\r\n", "\n")


def _decompressed(data):
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        text = file.read(PACKED * len(data) + 1)
    if len(text) > PACKED * len(data):
        raise OSError(f"expands to more than {PACKED} times its size")
    return text


def seed_of(path: str | PathLike) -> str:
    """The name of a run, ``seed`` of ``seed_hr.dat`` or ``seed_tb.dat.gz``."""
    return re.sub(r"_(hr|tb)\.dat(\.gz)?$", "", Path(path).name)


def beside(path: str | PathLike, ending: str) -> Path | None:
    """Path of another file of the same run, compressed or not, or None."""
    path, name = Path(path), seed_of(path) + ending
    return next((path.with_name(n) for n in (name, f"{name}.gz") if path.with_name(n).is_file()), None)


def check_end(path: str | PathLike, text: str) -> None:
    """Refuse a table whose last line does not end, because digits of its last number may be missing."""
    if not text.rstrip(" \t").endswith("\n"):
        raise Wannier90Error(
            f"{path}: truncated: the last line does not end, so that digits may be missing; copy or "
            "write it again, or end the line if it is whole"
        )


def check_size(path: str | PathLike, what: str, values: ArrayLike, unit: str) -> NDArray:
    """Return ``values`` unchanged; refuse NaN and numbers beyond any physical value."""
    values = np.asarray(values)
    if values.size and not (largest := abs(values).max()) < LARGEST:
        raise Wannier90Error(
            f"{path}: {what}: got {largest:g} {unit}, need finite numbers below {LARGEST:g}; the file "
            "is damaged or the run failed: write it again"
        )
    return values


def checked_cell(cell: ArrayLike) -> NDArray:
    """A cell [3, 3], Å, as it came, after refusing one without a volume.

    Raises
    ------
    ValueError
        For readers that add what they were reading.
    """
    cell = np.asarray(cell, dtype=float)
    if cell.shape != (3, 3) or not (abs(cell) < LARGEST).all():
        raise ValueError(f"cell of shape {list(cell.shape)} or of numbers beyond {LARGEST:g} Å")
    lengths = np.linalg.norm(cell, axis=1)
    if not lengths.min() > 1e-3 or not abs(np.linalg.det(cell / lengths[:, None])) > 1e-6:
        raise ValueError("lattice vectors that span no volume")
    return cell
