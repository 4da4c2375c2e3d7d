"""The input file of Wannier90, ``seed.win``."""

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_mlelec.checks import printable
from ase_mlelec.io.text import element_of, fortran_record
from ase_mlelec.io.wannier90.files import LENGTHS, Wannier90Error, check_size, checked_cell, read_text

_ONCE = ("unit_cell_cart", "atoms_frac", "atoms_cart")  # blocks that Wannier90 refuses to find twice
_EDGE = re.compile(r"(begin|end)[\s_=:]*([a-z]\w*)?", re.IGNORECASE)  # Wannier90 takes end_block and endblock


class Win(NamedTuple):
    """Contents of ``seed.win``.

    Attributes
    ----------
    atoms : ase.Atoms with cell
    keywords : dict of str
        Lower case -> value as written.
    blocks : dict of str
        Lower case -> list of lines, without begin and end.
    """

    atoms: Atoms
    keywords: dict
    blocks: dict


def read_win(path: str | PathLike) -> Win:
    """Read the input file of Wannier90.

    Returns
    -------
    Win

    Raises
    ------
    Wannier90Error
        For blocks that do not end or come twice, a missing or unreadable cell, and atoms of which no element is known.
    """
    keywords, blocks = read_blocks(path)
    cell = cell_of(path, blocks)
    if "atoms_frac" in blocks and "atoms_cart" in blocks:
        raise Wannier90Error(f"{path}: got both atoms_frac and atoms_cart, need one of them; leave one out")
    name = "atoms_frac" if "atoms_frac" in blocks else "atoms_cart"
    rows = blocks.get(name, [])
    try:
        scale, rows = _unit(rows, len(rows) > 0 and len(_words(rows[0])) < 4)
        symbols = [element_of(_words(row)[0]) for row in rows]
        places = np.array([fortran_record(" ".join(_words(row)[1:]), 3) for row in rows]).reshape(len(rows), 3)
    except (ValueError, IndexError) as error:
        raise Wannier90Error(
            f"{path}: no readable cell or atoms ({name}: {printable(error)}); need a label "
            "and three numbers in each line"
        ) from None
    check_size(path, name, places, "")
    atoms = Atoms(symbols, places @ cell if name == "atoms_frac" else places * scale, cell=cell, pbc=True)
    return Win(atoms, keywords, blocks)


def read_blocks(path: str | PathLike) -> tuple:
    """(keywords, blocks) of Win, whether or not they hold a cell.

    Raises
    ------
    Wannier90Error
        For blocks that do not end or come twice.
    """
    keywords: dict = {}
    blocks: dict = {}
    block = None
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = re.split("[!#]", line)[0].strip()
        edge = _EDGE.match(line)
        where = f"{path}, line {number}: got '{printable(line, 60)}'"
        if edge and edge[1].lower() == "begin" and edge[2]:
            name = edge[2].lower()
            if block is not None:
                raise Wannier90Error(f"{where} within the block {printable(block, 40)}, which has no end; add its end")
            if name in blocks and name in _ONCE:
                raise Wannier90Error(f"{where} a second time; leave one of the two blocks")
            block = name
            blocks.setdefault(name, [])
        elif edge and edge[1].lower() == "end":
            if block is None or (edge[2] or "").lower() != block:
                raise Wannier90Error(
                    f"{where}, need {f'end {printable(block, 40)}' if block else 'a begin before it'}; correct the line"
                )
            block = None
        elif line and block is not None:
            blocks[block].append(line)
        elif line:
            key, _, value = re.sub(r"\s*[=:\s]\s*", " ", line, count=1).partition(" ")
            keywords[key.lower()] = value.strip()
    if block is not None:
        raise Wannier90Error(
            f"{path}: got a block without an end, {printable(block, 40)}; the file is truncated, or "
            "its end is missing: copy it again or add the line"
        )
    return keywords, blocks


def cell_of(path: str | PathLike, blocks: Mapping[str, Sequence[str]]) -> NDArray:
    """Cell [3, 3], Å, rows. Raises Wannier90Error where there is none."""
    if "unit_cell_cart" not in blocks:
        raise Wannier90Error(f"{path}: no readable cell or atoms ('unit_cell_cart'); need the block unit_cell_cart")
    try:
        scale, rows = _unit(blocks["unit_cell_cart"], len(blocks["unit_cell_cart"]) > 3)
        if len(rows) != 3:
            raise ValueError(f"got {len(rows)} lattice vectors, need 3")
        return checked_cell(scale * np.array([fortran_record(row, 3) for row in rows]))
    except ValueError as error:
        raise Wannier90Error(
            f"{path}: no readable cell or atoms (unit_cell_cart: {printable(error)}); correct it"
        ) from None


def is_spinor(path: str | PathLike, keywords: Mapping[str, str]) -> bool | None:
    """Whether ``spinors`` is set, or None where it is not given; Wannier90 looks for a t, then for an f."""
    value = keywords.get("spinors")
    if value is None or "t" in value.lower():
        return None if value is None else True
    if "f" not in value.lower():
        raise Wannier90Error(f"{path}: spinors: got '{value}', need .true. or .false.; correct the line")
    return False


def _words(row):
    return row.replace(",", " ").split()


def _unit(rows, given):
    """(Å per unit, the rows behind the line of the unit), where the first row is one: anything with ang or bohr."""
    if not given:
        return 1.0, rows
    for name, scale in LENGTHS.items():
        if name in rows[0].lower():
            return scale, rows[1:]
    raise ValueError(f"got '{rows[0]}' in the first line, need the unit ang or bohr, or numbers")
