"""VASP's ML_AB and ML_ABN: the structures of ab initio calculations on which VASP trains its own potentials.

References: VASP's wiki, "ML_AB". Units are Å, eV and kbar; energy and stress are those of OUTCAR, the free energy TOTEN
and the opposite of ASE's sign.
"""

import re
from os import PathLike

import numpy as np

from ase_mlelec.checks import printable
from ase_mlelec.io.outcar import Outcar
from ase_mlelec.io.text import element_of, read_numbers, read_text
from ase_mlelec.io.vasp import KBAR, UNREADABLE, VaspError, VaspStep, opened

HEAD = 1000  # bytes within which the number of structures is told
SEPARATOR = re.compile(r"[ \t]*([*=-])\1{39,}[ \t]*")
COUNT = "The number of configurations"
BEGIN = re.compile(r"Configuration num\. +\d+")
KINDS, ENERGY, FORCES = "Atom types and atom numbers", "Total energy (eV)", "Forces (eV ang.^-1)"
CELL, POSITIONS = "Primitive lattice vectors (ang.)", "Atomic positions (ang.)"
DIAGONAL, OTHERS = "XX YY ZZ", "XY YZ ZX"
PARTS = {KINDS, CELL, POSITIONS, ENERGY, FORCES, DIAGONAL, OTHERS}
AGAIN = "VASP did not finish, or the file is damaged: let it finish or copy the file again"


def is_ml_ab(path: str | PathLike) -> bool:
    """Whether a file is an ML_AB, of any name, from its first lines; it may be compressed by gzip."""
    try:
        with opened(path) as file:
            head = file.read(HEAD)
    except (VaspError, *UNREADABLE):
        return False
    return b"Version" in head and COUNT.encode() in head


def read_ml_ab(path: str | PathLike) -> list[Outcar]:
    """Read ML_AB, which may be compressed by gzip.

    Returns
    -------
    list of Outcar
        One structure each, since their atoms may differ.

    Raises
    ------
    VaspError
        For a missing or damaged file, and for one with other structures than it says.
    """
    blocks = _blocks(read_text(path, "give ML_AB or ML_ABN", VaspError))
    titles = [" ".join(block.split()) for block in blocks]
    if COUNT not in titles[:-1]:
        raise VaspError(f"{path}: no '{COUNT}' in it; give ML_AB or ML_ABN")
    count = read_numbers(path, COUNT, blocks[titles.index(COUNT) + 1], VaspError)
    starts = [k for k, title in enumerate(titles) if BEGIN.fullmatch(title)]
    if count.tolist() != [len(starts)] or not starts:
        raise VaspError(
            f"{path}: got {len(starts)} structures, '{COUNT}' says {' '.join(f'{each:g}' for each in count[:3])}; {AGAIN}"
        )
    found = []
    for number, (first, end) in enumerate(zip(starts, [*starts[1:], len(blocks)]), 1):
        parts = {titles[k]: blocks[k + 1] for k in range(first, end - 1) if titles[k] in PARTS}
        found.append(_structure(f"{path}: structure {number}", parts))
    return found


def _blocks(text):
    """Texts between lines of stars, equal signs or minus signs; the last line must end, as its number may be cut off."""
    blocks: list[list[str]] = [[]]
    for line in text.rpartition("\n")[0].split("\n"):
        if SEPARATOR.fullmatch(line):
            blocks.append([])
        else:
            blocks[-1].append(line)
    return ["\n".join(lines) for lines in blocks]


def _structure(where, parts):
    symbols = _symbols(where, parts.get(KINDS, ""))
    sizes = {CELL: 9, POSITIONS: 3 * len(symbols), ENERGY: 1, FORCES: 3 * len(symbols), DIAGONAL: 3, OTHERS: 3}
    values = {}
    for title, size in sizes.items():
        values[title] = read_numbers(where, title, parts.get(title, ""), VaspError)
        if len(values[title]) != size:
            raise VaspError(f"{where}: got {len(values[title])} numbers of '{title}', need {size}; {AGAIN}")
    (xx, yy, zz), (xy, yz, zx) = -KBAR * values[DIAGONAL], -KBAR * values[OTHERS]
    step = VaspStep(
        cell=values[CELL].reshape(3, 3),
        positions=values[POSITIONS].reshape(-1, 3),
        energy=float(values[ENERGY][0]),
        forces=values[FORCES].reshape(-1, 3),
        stress=np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]),
        converged=True,
    )
    return Outcar(symbols, [step])


def _symbols(where, text):
    symbols = []
    for line in text.split("\n"):
        words = line.split()
        if not words:
            continue
        try:
            if len(words) != 2 or not re.fullmatch(r"\d{1,9}", words[1]):
                raise ValueError(f"got '{printable(line.strip(), 40)}', need an element and a number")
            symbols += [element_of(words[0])] * int(words[1])
        except ValueError as error:
            raise VaspError(f"{where}: kinds of atoms not understood ({printable(error)}); {AGAIN}") from None
    if not symbols:
        raise VaspError(f"{where}: no atoms in it; {AGAIN}")
    return symbols
