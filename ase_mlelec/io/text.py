"""Text files of other programs, which may be compressed, truncated or damaged."""

import zlib
from os import PathLike
from pathlib import Path

import numpy as np

from ase_mlelec.checks import check_finite, printable
from ase_mlelec.io.fortran import fortran_floats

GZIP = b"\x1f\x8b"
EXPANSION = 200  # tables of numbers shrink to a third, XML to a twentieth; what grows by more than this is no such
LARGEST = 1e100  # largest number, so that it stays finite in other units


def read_text(path: str | PathLike, remedy: str, error=ValueError):
    r"""Contents of a text file, which may be compressed by gzip; lines end in "\n", bytes that are no UTF-8 replaced.

    Parameters
    ----------
    remedy : str
        e.g. "give a Gaussian cube file", for a file that is not there.
    error
        The reader's class of exceptions.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise error(f"{path}: no such file; {remedy}")
        data = path.read_bytes()
    except OSError as caught:
        raise error(f"{path}: cannot be read ({caught.strerror}); {remedy}") from None
    if data.startswith(GZIP):
        data = _expanded(path, data, error)
    return data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")


def _expanded(path, data, error):
    """Contents of a gzip file, one or several members behind each other."""
    room, parts = EXPANSION * len(data) + 2**20, []
    while data.startswith(GZIP):
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(data, room + 1))
        except zlib.error as caught:
            raise error(f"{path}: the gzip file is damaged ({caught}); copy or compress it again") from None
        room -= len(parts[-1])
        if room < 0:
            raise error(
                f"{path}: expands to more than {EXPANSION} times its size, which no table of numbers does; "
                "compress the file again"
            )
        if not member.eof:
            raise error(f"{path}: the gzip file is truncated; copy or compress it again")
        data = member.unused_data
    return b"".join(parts)


def read_numbers(path: str | PathLike, what: str, text: str, error=ValueError):
    """Array of the numbers in a text, finite ones.

    Parameters
    ----------
    what : str
        Where in the file they are, for messages.
    """
    try:
        values = fortran_floats(text)
    except ValueError as caught:
        raise error(
            f"{path}: {what} holds something else than numbers ({printable(caught, 80)}); the file is damaged: "
            "write or copy it again"
        ) from None
    check_finite(path, what, values, error)
    if np.abs(values).max(initial=0) > LARGEST:
        raise error(f"{path}: {what} holds a number beyond {LARGEST:g}; the file is damaged: write or copy it again")
    return values
