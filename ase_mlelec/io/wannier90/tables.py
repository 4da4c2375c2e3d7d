"""Tables of numbers in text files: heads as Fortran reads them, tables as arrays."""

import math
import re
import warnings
from os import PathLike

import numpy as np

from ase_mlelec.checks import printable
from ase_mlelec.io.fortran import fortran_floats, fortran_record
from ase_mlelec.io.wannier90.files import LARGEST, Wannier90Error

# text behind the numbers of a line; without the blanks before it, which would take a time that grows as their square
_BEHIND = re.compile(r"[!#].*|(?<=[ \t])[A-Za-z(].*")
_NOT_FINITE = re.compile(r"(?<![A-Za-z])(nan|inf(inity)?)(?![A-Za-z])", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([DdEe]?[-+]?\d+)?", re.ASCII)


class Lines:
    """Lines of a text, read one after the other as by Fortran's ``READ(*,*)``.

    A READ begins at a new line, takes as many lines as its values need, and ignores what is left of the last one.
    """

    def __init__(self, path: str | PathLike, text: str):
        self.path, self.number, self.length = path, 0, len(text)
        self._text, self._at = text, 0

    def next(self):
        """The next line. Raises Wannier90Error at the end of the file."""
        if self._at >= self.length:
            raise self.error(f"ends after line {self.number}")
        end = self._text.find("\n", self._at) + 1 or self.length
        line, self._at = self._text[self._at : end], end
        self.number += 1
        return line

    def rest(self):
        """Rest of the text."""
        return self._text[self._at :]

    def error(self, cause):
        """Wannier90Error of a head that is not as it should be."""
        return Wannier90Error(f"{self.path}: truncated or not written by Wannier90 ({cause}); write it again")

    def integers(self, count, what: str):
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

    def floats(self, count):
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

    def back(self, mark) -> None:
        """Return to a place."""
        self._at, self.number = mark

    def n_left(self):
        """Number of lines that are left, without empty ones at the end."""
        end = self.length
        while end > self._at and self._text[end - 1].isspace():
            end -= 1
        return self._text.count("\n", self._at, end) + 1 if self._at < end else 0


def numbers(path: str | PathLike, text: str, shape, start):
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


def integers(path: str | PathLike, what: str, table):
    """Convert a table of floats to integers; Wannier90Error for fractions and for numbers that are too large."""
    if not (abs(table) < LARGEST).all() or (table != np.rint(table)).any():
        bad = table[~(abs(table) < LARGEST) | (table != np.rint(table))][0]
        raise Wannier90Error(
            f"{path}: {what}: got {bad:g}, need integers below {LARGEST:g}; the file is damaged: write it again"
        )
    return table.astype(np.int64)
