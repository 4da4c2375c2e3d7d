"""Tables of numbers in text files: heads as Fortran reads them, tables as arrays."""

import math
import re
import warnings
from collections.abc import Sequence
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.checks import printable
from ase_mlelec.io.text import fortran_floats, fortran_record
from ase_mlelec.io.wannier90.files import LARGEST, Wannier90Error, check_end, read_text

# text behind the numbers of a line; without the blanks before it, which would take a time that grows as their square
_BEHIND = re.compile(r"[!#].*|(?<=[ \t])[A-Za-z(].*")
_NOT_FINITE = re.compile(r"(?<![A-Za-z])(nan|inf(inity)?)(?![A-Za-z])", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([DdEe]?[-+]?\d+)?", re.ASCII)


class Lines:
    """Lines of a text, read one after the other as by Fortran's ``READ(*,*)``.

    A READ begins at a new line, takes as many lines as its values need, and ignores what is left of the last one.
    """

    def __init__(self, path: str | PathLike, text: str) -> None:
        self.path, self.number, self.length = path, 0, len(text)
        self._text, self._at = text, 0

    def next(self) -> str:
        """The next line. Raises Wannier90Error at the end of the file."""
        if self._at >= self.length:
            raise self.error(f"ends after line {self.number}")
        end = self._text.find("\n", self._at) + 1 or self.length
        line, self._at = self._text[self._at : end], end
        self.number += 1
        return line

    def rest(self) -> str:
        """Rest of the text."""
        return self._text[self._at :]

    def error(self, cause: object) -> Wannier90Error:
        """Wannier90Error of a head that is not as it should be."""
        return Wannier90Error(f"{self.path}: truncated or not written by Wannier90 ({cause}); write it again")

    def integers(self, count: int, what: str) -> list[int]:
        """The next ``count`` integers, list."""
        found: list = []
        while len(found) < count:
            for word in self.next().replace(",", " ").split():
                if len(found) == count:
                    break
                if not re.fullmatch(r"[-+]?\d{1,12}", word, re.ASCII):
                    raise self.error(f"line {self.number}: got '{printable(word, 40)}', need an integer, {what}")
                found.append(int(word))
        return found

    def floats(self, count: int) -> list[float]:
        """``count`` numbers of the next line, list."""
        try:
            return fortran_record(self.next(), count)
        except ValueError as error:
            raise Wannier90Error(
                f"{self.path}: truncated or damaged (line {self.number}: {printable(error)}); write it again"
            ) from None

    def mark(self) -> tuple:
        """The place that back() returns to."""
        return self._at, self.number

    def back(self, mark: tuple[int, int]) -> None:
        """Return to a place."""
        self._at, self.number = mark

    def n_left(self) -> int:
        """Number of lines that are left, without empty ones at the end."""
        end = self.length
        while end > self._at and self._text[end - 1].isspace():
            end -= 1
        return self._text.count("\n", self._at, end) + 1 if self._at < end else 0


def numbers(path: str | PathLike, text: str, shape: Sequence[int], start: int) -> NDArray:
    """Array [shape] of the numbers in a text, with or without text behind them; shape (-1,): as many as there are.

    Parameters
    ----------
    start : int
        The number of the line before the text, for messages.

    Raises
    ------
    Wannier90Error
        For a wrong count, and for words that are no finite numbers.
    """
    table = _plain(text)
    if table is None:
        table = _plain(_cleaned(text))
    if table is None and not re.search(r"[^-+\d.EeDd\s]", _cleaned(text), re.ASCII):
        table = _or_none(_cleaned(text))  # 1.0-100 for 1e-100
    if table is None or not np.isfinite(table).all():
        line, word = _first_bad(text, start)
        raise Wannier90Error(
            f"{path}: truncated or damaged (could not convert '{printable(word, 40)}' to a number, "
            f"line {line}); write it again"
        )
    if shape != (-1,) and len(table) != (count := math.prod(shape)):
        raise Wannier90Error(f"{path}: truncated or damaged ({len(table)} numbers of {count}); write it again")
    return table.reshape(shape)


def _plain(text):
    """Array of a text that holds numbers and blanks alone, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how older NumPy tells what is no number
            return np.fromstring(text, sep=" ")
    except (ValueError, DeprecationWarning):
        return None


def _cleaned(text):
    """Remove comments and commas from a text, and write D exponents as E; unchanged where a number is not finite."""
    if _NOT_FINITE.search(text):
        return text
    return _BEHIND.sub("", text.replace(",", " ")).translate({ord("D"): "E", ord("d"): "e"})


def _or_none(text):
    try:
        return fortran_floats(text)
    except ValueError:
        return None


def _first_bad(text, start):
    """(line, word) of the first word that is no finite number, or of the most suspicious word."""
    for number, line in enumerate(text.split("\n"), start + 1):
        for word in re.split(r"\s[!#]", line)[0].replace(",", " ").split():
            value = _or_none(word) if _NUMBER.fullmatch(word) else None
            if value is None or not np.isfinite(value).all():
                return number, word
    return start + 1, "?"


def integers(path: str | PathLike, what: str, table: NDArray) -> NDArray:
    """Convert a table of floats to integers; Wannier90Error for fractions and for numbers that are too large."""
    if not (abs(table) < LARGEST).all() or (table != np.rint(table)).any():
        bad = table[~(abs(table) < LARGEST) | (table != np.rint(table))][0]
        raise Wannier90Error(
            f"{path}: {what}: got {bad:g}, need integers below {LARGEST:g}; the file is damaged: write it again"
        )
    return table.astype(np.int64)


def shared_out(path: str | PathLike, hamiltonian: str | PathLike, r_vectors: NDArray, values: NDArray) -> tuple:
    """Elements ``<m 0|n R>`` moved to the images R + T of wsvec, which share them equally.

    Parameters
    ----------
    path, hamiltonian
        The wsvec file, and the file of the Hamiltonian that it is beside.
    r_vectors : array [R, 3]
        Integers.
    values : array [R, W, W, V]

    Returns
    -------
    r_vectors : array [R', 3]
    values : array [R', W, W, V]

    Raises
    ------
    Wannier90Error
        For damaged files, and files that do not have each element of the Hamiltonian once.
    """
    size = values.shape[1]
    which, counts, shifts = _elements(path, hamiltonian, r_vectors, size)
    if len(which) != values[..., 0].size:
        raise _error(path, hamiltonian, f"{len(which)} elements of {values[..., 0].size}")
    which = np.repeat(which, counts)
    index, element = np.divmod(which, size * size)
    images, target = np.unique(r_vectors[index] + shifts, axis=0, return_inverse=True)
    folded = np.zeros((len(images), size * size, values.shape[-1]), dtype=complex)
    shares = 1 / np.repeat(counts, counts)
    np.add.at(folded, (target.ravel(), element), values.reshape(-1, values.shape[-1])[which] * shares[:, None])
    return images, folded.reshape(len(images), size, size, -1)


def _elements(path, hamiltonian, r_vectors, size):
    """(elements [M] of H(R), each once, numbers of their images [M], vectors T [sum of those numbers, 3])"""
    text = read_text(path)
    rest = text.partition("\n")[2]
    table = numbers(path, rest, (-1,), 1) if rest.strip() else np.zeros(0)
    table = integers(path, "lattice vectors, functions and counts", table).tolist()
    place = {tuple(r): index for index, r in enumerate(r_vectors.tolist())}
    which, counts, shifts, seen, at = [], [], [], set(), 0
    while at < len(table):
        *r_vector, m, n, count = table[at : at + 6] if at + 6 <= len(table) else (0, 0, 0, 0, 0, 0)
        element = (place.get(tuple(r_vector), -1) * size + m - 1) * size + n - 1
        where = f"element {m}, {n} of R = {r_vector}"
        if not (0 < m <= size and 0 < n <= size and element >= 0) or element in seen:
            raise _error(
                path,
                hamiltonian,
                "it ends within an element"
                if at + 6 > len(table)
                else f"{where} {'twice' if element in seen else 'is not in H(R)'}",
            )
        at += 6 + 3 * count
        if count < 1 or at > len(table):
            raise _error(path, hamiltonian, f"{where}: {count} images" + (", more than follow" if count > 0 else ""))
        seen.add(element)
        which.append(element)
        counts.append(count)
        shifts += table[at - 3 * count : at]
    check_end(path, text)
    return np.array(which, dtype=int), np.array(counts, dtype=int), np.array(shifts, dtype=int).reshape(-1, 3)


def _error(path, hamiltonian, cause):
    return Wannier90Error(
        f"{path}: truncated or of another run ({cause}); write it again, or move it away to read "
        f"{hamiltonian} without the images of minimal distance"
    )
