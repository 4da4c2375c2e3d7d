"""Text files of other programs, which may be compressed, truncated or damaged."""

import re
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_mlelec.checks import check_finite, printable

GZIP = b"\x1f\x8b"
EXPANSION = 200  # tables of numbers shrink to a third, XML to a twentieth; what grows by more than this is no such
LARGEST = 1e100  # largest number, so that it stays finite in other units


def read_text(path: str | PathLike, remedy: str, error: type[Exception] = ValueError) -> str:
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
            raise error(f"{path}: the gzip file is cut off; copy or compress it again")
        data = member.unused_data
    return b"".join(parts)


def read_numbers(path: str | PathLike, what: str, text: str, error: type[Exception] = ValueError) -> NDArray:
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


def float_or(word: str | None, otherwise: float) -> float:
    """The number that a word is, or ``otherwise`` where it is none or missing."""
    try:
        return float(word or "")
    except ValueError:
        return otherwise


def fortran_floats(text: str) -> NDArray:
    """Array of the numbers in a text written by Fortran, which prints 1e-100 as 1.0-100 and may print D for E.

    Raises
    ------
    ValueError
        For what is no number.
    """
    if "_" in text:  # Python reads 1_0 as 10
        raise ValueError(f"got '{next(word for word in text.split() if '_' in word)}'")
    try:
        return np.array(text.split(), dtype=float)
    except ValueError:
        written = re.sub(r"(?<=[\d.])(?:[DdEe](?=[-+]?\d)|(?=[-+]\d{3}(?!\d)))", "E", text)
        return np.array(written.split(), dtype=float)


_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))(?:[DdEeQq]([-+]?\d+)|([-+]\d+))?", re.ASCII)


def fortran_record(line: str, count: int) -> list[float]:
    """The first ``count`` numbers of a line, list of float, as Fortran's ``READ(*,*)`` takes them.

    Numbers are apart by blanks or commas, ``2*0.0`` stands for two of them, text behind them is ignored.

    Raises
    ------
    ValueError
        For fewer numbers.
    """
    found: list[float] = []
    for word in line.replace(",", " ").split():
        if len(found) >= count:
            break
        times, _, value = word.rpartition("*")
        number = _NUMBER.fullmatch(value)
        if not number or (times and not (times.isdecimal() and len(times) < 5)):
            raise ValueError(f"got '{printable(word, 40)}' in '{printable(line, 60)}', need {count} numbers")
        found += [float(f"{number[1]}e{number[2] or number[3] or 0}")] * (int(times) if times else 1)
    if len(found) < count:
        raise ValueError(f"got {len(found)} numbers in '{printable(line, 60)}', need {count}")
    return found[:count]


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
