"""Functions that all readers of Quantum ESPRESSO's files share: error, text and XML, numbers as Fortran writes them."""

import re
import xml.etree.ElementTree as ElementTree
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.checks import check_finite, printable
from ase_mlelec.io.text import element_of, fortran_floats

LARGEST = 1e100

# of pw.x, in text and XML
NO_ENERGY = "an nscf or bands run, which has no total energy; give the scf run's output, kept before the nscf run"
NOT_CONVERGED = "the SCF did not converge; raise electron_maxstep or lower mixing_beta"
# pw.x prints zeros along the third axis then, and stores other numbers that are no stress either
ESM = "the stress is not read: pw.x has none along the third axis with assume_isolated = 'esm'"
# With scf_must_converge = false pw.x calls unconverged steps converged.  The accuracy tells; ten times conv_thr is
# allowed because hybrid functionals with adaptive_thr end with a threshold that was a little looser.
LOOSE = 10


class EspressoError(ValueError):
    """A Quantum ESPRESSO file cannot be used; the message names the file, the cause and the remedy."""


def damaged(place: str | PathLike, what: str) -> EspressoError:
    """The error for what cannot stand in a file as Quantum ESPRESSO wrote it."""
    return EspressoError(f"{place}: {what}; the file is damaged: copy it again")


def find_file(path: str | PathLike, name: str, what: str) -> Path:
    """Find a file: ``path`` itself, or ``name`` (or name.gz) in the folder ``path`` or in its only .save folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    for pattern in (name, f"{name}.gz", f"*.save/{name}", f"*.save/{name}.gz"):
        found = sorted(path.glob(pattern))
        if len(found) > 1:
            raise EspressoError(
                f"{path}: got {len(found)} runs ({', '.join(p.parent.name for p in found[:4])}), "
                f"need one; give the path of one {name}"
            )
        if found:
            return found[0]
    if (path / "data-file.xml").exists():
        raise EspressoError(
            f"{path}: written by Quantum ESPRESSO before 6.2 (data-file.xml), which is not read; {what}"
        )
    raise EspressoError(f"{path}: no {name} in this folder; {what}")


def parse_xml(
    path: str | PathLike, text: str, program: str, problem: str = "truncated or not XML"
) -> ElementTree.Element:
    """Root element of an XML file. Entities, which Quantum ESPRESSO does not write, are refused: they may be bombs."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise EspressoError(
            f"{path}: it declares a document type or entities, which {program} does not write; run {program} again"
        )
    try:
        return ElementTree.fromstring(text.encode("utf-8"), ElementTree.XMLParser(encoding="utf-8"))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise EspressoError(f"{path}: {problem} ({printable(error)}); run {program} again") from None


def floats(path: str | PathLike, place: str, text: str, count: int | None = None) -> NDArray:
    """Read finite numbers [count] from a text; EspressoError names the place of a word that is no number."""
    words = (text or "").split()
    if count is not None and len(words) != count:
        raise EspressoError(
            f"{path}: {place} holds {len(words)} numbers, need {count}; the file is damaged or cut off: copy it again"
        )
    try:
        values = fortran_floats(" ".join(words))
    except ValueError:
        raise EspressoError(f"{path}: {place} holds {_no_number(words)}") from None
    return check_values(path, place, values)


def check_values(path: str | PathLike, place: str, values: ArrayLike) -> Any:
    """``values`` as they came, after refusing NaN, infinity and what would become infinite in other units."""
    check_finite(path, place, values, EspressoError)
    largest = np.abs(values).max(initial=0)
    if largest > LARGEST:
        raise damaged(path, f"{place} holds a number as large as {largest:g}, which no calculation gives")
    return values


def _no_number(words):
    for word in words:
        try:
            fortran_floats(word)
        except ValueError:
            return describe_no_number(word)
    return describe_no_number(" ".join(words))


def describe_no_number(word: str) -> str:
    """The part of a message after "holds", with the remedy."""
    if "*" in word:
        return f"{word[:40]!r}: Fortran prints stars for a number that does not fit; read the run's XML file instead"
    if re.search("nan|inf", word, re.IGNORECASE):
        return f"{word[:40]!r}, NaN or infinity; the calculation failed: calculate it again"
    return f"{word[:40]!r}, which is no number; the file is damaged: copy it again"


def whole_number(path: str | PathLike, place: str, text: str | None) -> int:
    """A count >= 0 from an attribute or element of an XML file."""
    if text is None or not re.fullmatch(r"\s*\+?\d{1,18}\s*", text):
        raise damaged(path, f"{place} is {text!r}, need a whole number")
    return int(text)


def element(path: str | PathLike, label: str) -> str:
    """Chemical symbol of a species' label."""
    try:
        return element_of(label)
    except ValueError as error:
        raise EspressoError(f"{path}: {error}") from None
