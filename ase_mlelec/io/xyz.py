"""Lines of xyz and extxyz files, checked before ASE reads them."""

from os import PathLike

from ase.io.formats import open_with_compression

LONGEST_LINE = 1 << 24


def check_lines(path: str | PathLike) -> str:
    """Comment of the first frame of an extxyz file; refuse an early end of the file, and an empty line between frames.

    ASE would read on without end in the first case, and stop reading in the second.

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
            if line.startswith("\ufeff"):
                raise ValueError("a byte order mark comes before the text; save it as UTF-8 without one")
            count, start = int(line), number
            if count < 1:
                raise ValueError(f"line {number} claims {count} atoms, need at least one")
            while number <= start + count:
                line = file.readline(LONGEST_LINE)
                if not line or len(line) == LONGEST_LINE:
                    raise ValueError(
                        f"line {start} claims {count} atoms, but line {number + 1} is "
                        + ("too long" if line else "missing")
                    )
                comment, number = comment or line, number + 1
            while _next_vector(file):  # skips ADF's cell vectors
                number += 1
    return comment


def _next_vector(file):
    """Whether the next line is a cell vector of ADF; the position in the file moves behind it only in that case."""
    place = file.tell()
    if file.readline(LONGEST_LINE).lstrip().startswith("VEC"):
        return True
    file.seek(place)
    return False
