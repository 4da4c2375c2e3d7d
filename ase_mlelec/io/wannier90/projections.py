"""The projections block of ``seed.win``: atom, orbital and axes of every function, in Wannier90's order."""

import re
from os import PathLike
from typing import NamedTuple

import numpy as np

from ase_mlelec.checks import printable
from ase_mlelec.io.text import fortran_record
from ase_mlelec.io.wannier90.files import LENGTHS, Wannier90Error
from ase_mlelec.io.wannier90.win import Win

# names of angular parts -> (l, m_r), in the order in which Wannier90 takes them
SHELLS = {0: ("s",), 1: ("pz", "px", "py"), 2: ("dz2", "dxz", "dyz", "dx2-y2", "dxy")}
LETTERS = {"s": 0, "p": 1, "d": 2}
NEAR = 0.1  # Å between a site that is given by its coordinates and its atom
PERPENDICULAR = 1e-6
ALIASES = {"dz^2": "dz2", "dx^2-y^2": "dx2-y2"}


class Projection(NamedTuple):
    """One function.

    Attributes
    ----------
    atom : int
    orbital : str
        s, pz, px, py, dz2, dxz, dyz, dx2-y2 or dxy.
    z, x : tuple of 3 floats
        Axes, normalized.
    """

    atom: int
    orbital: str
    z: tuple
    x: tuple


def projections_of(path: str | PathLike, win: Win) -> list[Projection]:
    """Functions that the projections block of an input file asks for.

    Parameters
    ----------
    path : path
        For messages.
    win : Win
        Contents of the file.

    Raises
    ------
    Wannier90Error
        For a missing block, and for projections that are not s, p and d functions of atoms: hybrids, random functions,
        spinors, sites between the atoms.
    """
    rows, scale = list(win.blocks.get("projections", [])), 1.0
    if rows and rows[0].strip().lower() in LENGTHS:
        scale = LENGTHS[rows.pop(0).strip().lower()]
    if not rows:
        raise Wannier90Error(
            f"{path}: no block of projections, which tells the atom and the orbital of every function; add it"
        )
    labels = _labels(win)
    found = []
    for row in rows:
        try:
            site, angular, *options = _parts(row)
            axes = _axes(options)
            atoms = _sites(site, win, labels, scale)
            orbitals = _orbitals(angular)
        except ValueError as error:
            raise Wannier90Error(
                f"{path}: projection '{printable(row, 60)}' is not understood ({printable(error, 90)}); need lines such "
                "as 'C: pz' or 'f=0,0,0: l=2: z=0,0,1: x=1,0,0' with s, p and d functions of atoms"
            ) from None
        found += [Projection(atom, orbital, *axes) for atom in atoms for orbital in orbitals]
    return found


def _parts(row):
    """Site, angular part and options of a projection."""
    parts = [part.strip() for part in row.split(":")]
    if len(parts) < 2:
        raise ValueError("it asks for random functions" if parts[0].lower() == "random" else "it names no orbital")
    return parts


def _labels(win):
    """Labels of the atoms as written, in lower case."""
    rows = win.blocks.get("atoms_frac") or win.blocks.get("atoms_cart") or []
    words = [row.replace(",", " ").split() for row in rows]
    return [each[0].lower() for each in words if len(each) > 3]


def _sites(site, win, labels, scale):
    """Indices of the atoms of a projection."""
    name, equals, numbers = (part.strip() for part in site.partition("="))
    if not equals:
        atoms = [k for k, label in enumerate(labels) if label == name.lower()]
        if not atoms:
            raise ValueError(f"no atom is called {name}")
        return atoms
    place = np.array(fortran_record(numbers, 3))
    if name.lower() not in ("f", "c"):
        raise ValueError(f"the site begins with {name}=")
    cell = win.atoms.cell.array
    place = place @ cell if name.lower() == "f" else place * scale
    away = (win.atoms.positions - place) @ np.linalg.inv(cell)
    distances = np.linalg.norm((away - np.rint(away)) @ cell, axis=1)
    if not len(distances) or distances.min() > NEAR:
        raise ValueError("no atom is at its site")
    return [int(distances.argmin())]


def _orbitals(text):
    """Names of the orbitals in Wannier90's order, whatever the order in the file."""
    chosen: set[tuple[int, int]] = set()
    if "(" in text:
        raise ValueError("it has a spin")
    for part in re.sub(r"\s", "", text.lower()).split(";"):
        if found := re.fullmatch(r"l=([+-]?\d+)(?:,mr=([\d,]+))?", part):
            shell = int(found[1])
            if shell not in SHELLS:
                raise ValueError(f"l = {shell}")
            places = [int(word) - 1 for word in found[2].split(",")] if found[2] else range(len(SHELLS[shell]))
            chosen |= {(shell, place) for place in places}
            continue
        for name in part.split(","):
            chosen |= _named(ALIASES.get(name, name))
    if any(place >= len(SHELLS[shell]) for shell, place in chosen):
        raise ValueError("m_r is too large")
    return [SHELLS[shell][place] for shell, place in sorted(chosen)]


def _named(name):
    if name in LETTERS:
        return {(LETTERS[name], place) for place in range(len(SHELLS[LETTERS[name]]))}
    for shell, names in SHELLS.items():
        if name in names:
            return {(shell, names.index(name))}
    raise ValueError(f"{name or 'nothing'} is no s, p or d function")


def _axes(options):
    """(z, x), normalized; radial functions and scales do not matter here."""
    axes = {"z": (0.0, 0.0, 1.0), "x": (1.0, 0.0, 0.0)}
    for option in options:
        name, equals, numbers = (part.strip() for part in option.partition("="))
        if equals and name.lower() in axes:
            vector = np.array(fortran_record(numbers, 3))
            if not np.linalg.norm(vector) > 0:
                raise ValueError(f"the axis {name} is zero")
            axes[name.lower()] = tuple((vector / np.linalg.norm(vector)).tolist())
    if abs(np.dot(axes["z"], axes["x"])) > PERPENDICULAR:
        raise ValueError("its axes are not perpendicular")
    return axes["z"], axes["x"]


def lower_excluded(text: str) -> int:
    """Number of excluded bands at the bottom, from the keyword exclude_bands, such as "1-12, 35, 36".

    Wannier90 takes a colon for the dash of a range as well, blanks around it, ranges from above, and semicolons.

    Raises
    ------
    ValueError
        For other text.
    """
    if not re.fullmatch(r"[\d\s,;:-]*", text, re.ASCII):
        raise ValueError(f"got '{printable(text, 40)}', need bands and ranges of them")
    excluded: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:\s*[-:]\s*(\d+))?", text, re.ASCII):
        ends = int(first), int(last or first)
        excluded |= set(range(min(ends), max(ends) + 1))
    count = 0
    while count + 1 in excluded:
        count += 1
    return count
