"""Lines of xyz and extxyz files, checked before ASE reads them."""

import lzma
import zlib
from io import StringIO
from os import PathLike

from ase.io.formats import open_with_compression

LONGEST_LINE = 1 << 24
FEW = 3  # digits, which numbers may also have that are written as short as they are
MARK = "\ufeff"  # which editors of Windows put before a text


def first_lines(path: str | PathLike) -> tuple[str, str]:
    """The first two lines of a file, which may be compressed; empty where it is no text."""
    try:
        with open_with_compression(str(path)) as file:
            return file.readline(LONGEST_LINE), file.readline(LONGEST_LINE)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):  # some of which say that it is no text
        return "", ""


def is_extxyz(path: str | PathLike) -> bool:
    """Whether a file begins like an extxyz file, whatever its name is."""
    first, second = first_lines(path)
    return first.removeprefix(MARK).strip().isdecimal() and "Properties=" in second


def without_mark(path: str | PathLike) -> StringIO | str:
    """Path of a text file, or its contents where a byte order mark comes before them, which ASE does not know."""
    with open_with_compression(str(path)) as file:
        return StringIO(file.read()) if file.read(1) == MARK else str(path)


def check_lines(path: str | PathLike) -> str:
    """Comment of the first frame of an extxyz file; refuse an early end of the file, and an empty line between frames.

    ASE would read on without end in the first case, and stop reading in the second. A last number that lacks digits is
    another number.

    Raises
    ------
    ValueError
    """
    with open_with_compression(str(path)) as file:
        number, comment = 0, ""
        while line := file.readline(LONGEST_LINE):
            number += 1
            if not line.strip():
                if any(part.strip() for part in iter(lambda: file.readline(LONGEST_LINE), "")):
                    raise ValueError(f"line {number} is empty, need the number of atoms of the next frame")
                return comment
            count, start = int(line.removeprefix(MARK) if number == 1 else line), number
            digits = set()
            if count < 1:
                raise ValueError(f"line {number} claims {count} atoms, need at least one")
            while number <= start + count:
                digits |= {_decimals(line)} if number > start + 1 else set()
                line = file.readline(LONGEST_LINE)
                if not line or len(line) == LONGEST_LINE:
                    raise ValueError(
                        f"line {start} claims {count} atoms, but line {number + 1} is "
                        + ("too long" if line else "missing")
                    )
                comment, number = comment or line, number + 1
            if not line.endswith("\n") and len(digits) == 1 and _decimals(line) < min(digits) > FEW:
                raise ValueError(
                    f"line {number}, the last one, is cut off: its last number has fewer digits than others"
                )
            while _next_vector(file):  # skips ADF's cell vectors
                number += 1
    return comment


def _decimals(line):
    """Number of digits behind the point of the last number of a line."""
    return len(line.rstrip().rpartition(" ")[2].partition(".")[2])


def _next_vector(file):
    """Whether the next line is a cell vector of ADF; the position in the file moves behind it only in that case."""
    place = file.tell()
    if file.readline(LONGEST_LINE).lstrip().startswith("VEC"):
        return True
    file.seek(place)
    return False
