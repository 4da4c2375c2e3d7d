"""Lines of xyz and extxyz files, checked before ASE reads them."""

import lzma
import re
import zlib
from functools import lru_cache
from io import StringIO
from os import PathLike

from ase.io.formats import get_compression, open_with_compression

from ase_mlelec.checks import printable

LONGEST_LINE = 1 << 24
FEW = 3  # digits, which numbers may also have that are written as short as they are
MARK = "\ufeff"  # which editors of Windows put before a text
_FORTRAN = re.compile(r"(?<![^\s\"'])([-+]?(?:\d+\.\d*|\.\d+))[Dd]([-+]?\d{1,3})(?![^\s\"'])", re.ASCII)


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


def for_ase(path: str | PathLike) -> StringIO | str:
    """Path of a text file, or its contents where ASE cannot read it well by its path.

    ASE does not know a byte order mark before the text, nor numbers such as 1.0D-01, which Fortran may print. It also goes
    back in a file after every frame, for which a compressed file is decompressed from its beginning again.
    """
    with open_with_compression(str(path)) as file:
        first = [file.readline(LONGEST_LINE) for _ in range(3)]  # to the first atom
        if _FORTRAN.search(first[2]):
            return StringIO(_FORTRAN.sub(r"\1E\2", "".join([*first, file.read()]).removeprefix(MARK)))
        if first[0].startswith(MARK) or get_compression(str(path))[1]:
            return StringIO("".join([*first, file.read()]).removeprefix(MARK))
        return str(path)


def check_lines(path: str | PathLike) -> tuple[str, str]:
    """Comment of the first frame of an extxyz file, and what the columns are called that are not read ("" for none).

    Refuses an early end of the file, and an empty line between frames: ASE would read on without end in the first case,
    and stop reading in the second. A last number that lacks digits is another number. Columns behind those that
    ``Properties`` names are not read, such as forces where a comment has none.

    Raises
    ------
    ValueError
    """
    with open_with_compression(str(path)) as file:
        number, comment, unread = 0, "", ""
        line = file.readline(LONGEST_LINE)
        while line:
            number += 1
            if not line.strip():
                if any(part.strip() for part in iter(lambda: file.readline(LONGEST_LINE), "")):
                    raise ValueError(f"line {number} is empty, need the number of atoms of the next frame")
                return comment, unread
            count, start = _count(line.removeprefix(MARK) if number == 1 else line, number), number
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
                if number == start + 1:
                    n_columns = _n_columns(_properties(line))
                elif number == start + 2 and not unread and len(line.split()) > n_columns:
                    first, last = n_columns + 1, len(line.split())
                    unread = f"column {last}" if first == last else f"columns {first} to {last}"
                    unread += f" (line {number})"
            if not line.endswith("\n") and len(digits) == 1 and _decimals(line) < min(digits) > FEW:
                raise ValueError(
                    f"line {number}, the last one, is cut off: its last number has fewer digits than others"
                )
            line = file.readline(LONGEST_LINE)
            while line.lstrip().startswith("VEC"):  # skips ADF's cell vectors
                number, line = number + 1, file.readline(LONGEST_LINE)
    return comment, unread


def _count(line, number):
    try:
        return int(line)
    except ValueError:
        raise ValueError(
            f"line {number} is '{printable(line, 40)}', need the number of atoms of the next frame"
        ) from None


def _properties(comment):
    found = re.search(r"(?:^|\s)Properties\s*=\s*[\"']?([^\s\"']+)", comment, re.IGNORECASE)
    return found[1] if found else "species:S:1:pos:R:3"


@lru_cache(maxsize=8)
def _n_columns(properties):
    """Number of columns that a text such as species:S:1:pos:R:3 names; many where it is something else."""
    counts = properties.split(":")[2::3]
    return sum(map(int, counts)) if all(count.isdecimal() for count in counts) else LONGEST_LINE


def _decimals(line):
    """Number of digits behind the point of the last number of a line."""
    return len(line.rstrip().rpartition(" ")[2].partition(".")[2])
