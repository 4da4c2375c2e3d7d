"""Wannier centers and spreads: ``seed.wout``, ``seed_centres.xyz``, and which atom a center belongs to."""

import re
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.checks import printable
from ase_mlelec.deprecated import formerly_positional, renamed_arguments
from ase_mlelec.io.text import element_of
from ase_mlelec.io.wannier90.files import LENGTHS, Wannier90Error, check_end, check_size, checked_cell, read_text

AMBIGUOUS = 0.05  # Å; a center whose two nearest atoms are as close as this belongs to neither
SAME_PLACE = 0.01  # Å; ``.wout`` has five digits of the fractional coordinates
AGAIN = "copy it again, or run Wannier90 again"
ROUNDED = 2e-6  # of sums in ``.wout`` per number added; it has six digits


class Centers(NamedTuple):
    """Wannier functions of one run.

    Attributes
    ----------
    positions : array [W, 3], Å
        As Wannier90 left them: in any cell.
    spreads : array [W], Å^2, or None where the file has none (``_centres.xyz``)
    symbols : list of str
        Length N.
    atoms : ase.Atoms of the run
        With cell and pbc from ``.wout``, without them from ``_centres.xyz``.
    n_bands : int
        Bands that the functions were made from, or None where the file does not tell.
    """

    positions: np.ndarray
    spreads: np.ndarray | None
    symbols: list
    atoms: Atoms
    n_bands: int | None = None


def read_centers(path: str | PathLike) -> Centers:
    """Centers and spreads from ``seed.wout`` (the final state), or centers from ``seed_centres.xyz``.

    Returns
    -------
    Centers

    Raises
    ------
    Wannier90Error
        When the run did not finish, the file is damaged or something else, its centers do not add up to the sum that it
        states, or an atom has a label of no element.
    """
    text = read_text(path)
    if is_xyz(path):
        positions, rows = _rows_of_xyz(path, text)
        symbols = _symbols(path, [row[0] for row in rows])
        places = np.array([row[1:4] for row in rows], dtype=float).reshape(len(rows), 3)
        return Centers(positions, None, symbols, Atoms(symbols, check_size(path, "positions", places, "Å")))
    head, final = _final_state(path, text)
    positions, spreads = _functions_of_wout(path, head, final)
    cell = cell_of_wout(path, head)
    labels, fractions = _sites(path, head)
    symbols = _symbols(path, labels)
    atoms = Atoms(symbols, scaled_positions=fractions, cell=cell, pbc=True)
    bands = re.search(r"Number of input Bloch states\s*:\s*(\d+)", head)
    return Centers(positions, spreads, symbols, atoms, int(bands[1]) if bands else None)


def positions_in(path: str | PathLike, text: str) -> NDArray:
    """Centers [W, 3], Å, of the text of ``seed.wout`` or ``seed_centres.xyz``, whatever its atoms are called."""
    if is_xyz(path):
        return _rows_of_xyz(path, text)[0]
    return _functions_of_wout(path, *_final_state(path, text))[0]


def is_xyz(path: str | PathLike) -> bool:
    """Whether a name is the name of an xyz file."""
    return Path(path).name.removesuffix(".gz").endswith(".xyz")


def _symbols(path, labels):
    try:
        return [element_of(label) for label in labels]
    except ValueError as error:
        raise Wannier90Error(f"{path}: {error}") from None


def _rows_of_xyz(path, text):
    """(centers [W, 3], words of the rows of atoms) of an xyz file."""
    lines = text.split("\n")
    try:
        count = int(lines[0])
        rows = [line.split() for line in lines[2 : 2 + min(count, len(lines))] if line.strip()]
        table = np.array([row[1:4] for row in rows], dtype=float).reshape(len(rows), 3)
        if len(rows) != count:
            raise ValueError(f"{len(rows)} rows of {count}")
    except (ValueError, IndexError) as error:
        raise Wannier90Error(
            f"{path}: truncated or not an xyz file ({printable(error)}); set write_xyz and run again"
        ) from None
    if any(line.strip() for line in lines[2 + count :]):
        raise Wannier90Error(
            f"{path}: got lines behind its {count} rows, need one structure; cut the others off, or give a trajectory of "
            "CP2K to mlelec convert"
        )
    check_end(path, text)
    is_center = np.array([row[0] == "X" for row in rows], dtype=bool)
    if not is_center.any():
        raise Wannier90Error(f"{path}: no center (X), need seed_centres.xyz of Wannier90; set write_xyz")
    check_size(path, "centers", table, "Å")
    return table[is_center], [row for row in rows if row[0] != "X"]


# seed.wout, to which a restarted run appends

_NUMBER = r"\s*([-+\d.Ee]+)\s*"
_CENTER = re.compile(rf"WF centre and spread\s+(\d+)\s+\({_NUMBER},{_NUMBER},{_NUMBER}\){_NUMBER}$", re.MULTILINE)
_SUM = re.compile(rf"^\s*\({_NUMBER},{_NUMBER},{_NUMBER}\){_NUMBER}$", re.MULTILINE)
_COLUMN = r"[ \t]+([-+\d.Ee]+)"  # apart by blanks, or a number could be taken for two
_VECTOR = re.compile(rf"^\s*a_([123]){_COLUMN}{_COLUMN}{_COLUMN}\s*$", re.MULTILINE)
_SITE = re.compile(rf"^ \|\s*(\S+)\s+[\d*]+{_COLUMN}{_COLUMN}{_COLUMN}\s+\|")


def _final_state(path, text):
    """Split a ``.wout`` text into the part above the last final state, and the final state."""
    head, found, final = text.rpartition("Final State")
    if not (found and "Sum of centres and spreads" in final and _unit(head) and _count(head)):
        raise Wannier90Error(f"{path}: no final state; the run did not finish, or this is not a .wout file")
    return head, final


def _unit(head):
    found = re.findall(r"Lattice Vectors \((Ang|Bohr)\)", head)
    return LENGTHS[found[-1].lower()] if found else None


def _count(head):
    found = re.findall(r"Number of Wannier Functions\s*:\s*(\d+)", head)
    return found[-1] if found else None


def _functions_of_wout(path, head, final):
    """(centers [W, 3], Å, spreads [W], Å^2) of the final state."""
    rows, _, rest = final.partition("Sum of centres and spreads")
    found = _CENTER.findall(rows)
    if [row[0] for row in found] != [str(n + 1) for n in range(len(found))] or str(len(found)) != _count(head):
        raise Wannier90Error(f"{path}: got {len(found)} readable centers, need {_count(head)}; run Wannier90 again")
    table = _table(path, [row[1:] for row in found])
    check_size(path, "centers and spreads", table, "Å or Å^2")
    total = _SUM.match(rest)
    if total and abs(table.sum(0) - _table(path, [total.groups()])[0]).max() > ROUNDED * (1 + len(table)):
        raise Wannier90Error(f"{path}: got centers and spreads that do not add up to the sum below them; {AGAIN}")
    scale = _unit(head)
    return table[:, :3] * scale, table[:, 3] * scale**2


def _table(path, rows):
    try:
        return np.array(rows, dtype=float).reshape(len(rows), -1)
    except ValueError as error:
        raise Wannier90Error(f"{path}: got what is no number in its tables ({printable(error)}); {AGAIN}") from None


def cell_of_wout(path: str | PathLike, text: str) -> NDArray:
    """Cell [3, 3], Å, of the last run in a ``.wout`` text, which need not have finished.

    Raises
    ------
    Wannier90Error
        Where there is none.
    """
    scale = _unit(text)
    vectors = _VECTOR.findall(text.rpartition("Lattice Vectors (")[2])[:3] if scale else []
    try:
        if [vector[0] for vector in vectors] != ["1", "2", "3"]:
            raise ValueError("no lattice vectors a_1, a_2, a_3")
        return checked_cell(scale * _table(path, [vector[1:] for vector in vectors]))
    except ValueError as error:
        raise Wannier90Error(f"{path}: no readable cell ({printable(error)}); run Wannier90 again") from None


def _sites(path, text):
    """(labels, fractional positions [N, 3]) of the last run in a ``.wout`` text."""
    *_, rest = re.split(r"Site +Fractional Coordinate", text)  # iprint = 2 and more print those of k-points as well
    lines = rest.split("\n")[2:] if rest != text else []
    rows = []
    for line in lines:
        if not line.startswith(" |"):
            break
        site = _SITE.match(line)
        if not site:
            raise Wannier90Error(
                f"{path}: got the atom '{printable(line, 60)}', need a label and three numbers; {AGAIN}"
            )
        rows.append(site.groups())
    fractions = _table(path, [row[1:] for row in rows]).reshape(len(rows), 3)
    return [row[0] for row in rows], check_size(path, "positions", fractions, "cells")


# Assignment of centers to atoms


def nearest_atoms(atoms: Atoms, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The atom nearest to each position by minimum image.

    Parameters
    ----------
    atoms : ase.Atoms
    positions : array [W, 3], Å
        In any cell.

    Returns
    -------
    owner : array [W]
        Index of the atom.
    offset : array [W, 3]
        Å from the atom to the nearest image of the position.

    Raises
    ------
    Wannier90Error
        For a position that has two atoms at the same distance.
    """
    positions = np.asarray(positions, dtype=float)
    away = positions[:, None] - atoms.positions
    vectors, distances = find_mic(away.reshape(-1, 3), atoms.cell, atoms.pbc)
    vectors, distances = vectors.reshape(away.shape), distances.reshape(away.shape[:2])
    order = np.argsort(distances, axis=1)
    ranked = np.take_along_axis(distances, order, axis=1)
    if ranked.shape[1] > 1 and (close := ranked[:, 1] - ranked[:, 0] < AMBIGUOUS).any():
        at = int(np.argmax(close))
        raise Wannier90Error(
            f"center {at}: got atoms {order[at, 0]} and {order[at, 1]} both at {ranked[at, 0]:.2f} Å, "
            "need one nearest atom; change the projections or leave one of the species out"
        )
    return order[:, 0], vectors[np.arange(len(positions)), order[:, 0]]


@renamed_arguments(centres="centers")
@formerly_positional("max_spread")
def assign_centers(
    atoms: Atoms, centers: Centers | ArrayLike, per_species: dict[str, int], *, max_spread: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Share the Wannier centers out among the atoms that they are nearest to, and average them.

    Parameters
    ----------
    atoms : ase.Atoms with cell and pbc
    centers : Centers, or array [W, 3] in Å
    per_species : dict of int
        Centers per atom, e.g. {"O": 4}; species that are not named get none.
    max_spread : float, Å^2
        A larger spread is an error, because the localization fell into a wrong minimum.

    Returns
    -------
    centroids : array [n, 3], Å
        The mean of each atom's centers, unwrapped: next to the atom even where that lies outside of the cell.
    indices : array [n]
        Of those atoms, increasing.

    Raises
    ------
    Wannier90Error
        When an atom gets another number of centers, for a center that is as near to one atom as to another, for Centers
        of another structure, for functions of more bands than there are functions (a metal, or empty bands: the charges
        of such functions have no dipole), for spreads above max_spread, and for max_spread without spreads.

    References
    ----------
    Zhang et al. 2020, Phys. Rev. B 102, 041121(R): centroids of the four centers around each oxygen.
    """
    if isinstance(centers, Centers):
        positions, spreads = centers.positions, centers.spreads
        _check_run(atoms, centers)
    else:
        positions, spreads = np.asarray(centers, dtype=float), None
    if max_spread is not None:
        _check_spreads(spreads, max_spread)
    wanted = np.array([per_species.get(symbol, 0) for symbol in atoms.symbols])
    indices = np.flatnonzero(wanted)
    if len(positions) != wanted.sum() or not len(indices):
        raise Wannier90Error(
            f"got {len(positions)} centers, need {wanted.sum()} for {per_species} in {atoms.symbols}; "
            "check num_wann and per_species"
        )
    owner, offset = nearest_atoms(atoms[indices], positions)
    counts = np.bincount(owner, minlength=len(indices))
    if (wrong := counts != wanted[indices]).any():
        at = int(np.argmax(wrong))
        atom = indices[at]
        raise Wannier90Error(
            f"centers do not split: got {counts[at]} nearest to atom {atom} ({atoms.symbols[atom]}), "
            f"need {wanted[atom]}; reject this snapshot or localize again"
        )
    total = np.zeros((len(indices), 3))
    np.add.at(total, owner, offset)
    return atoms.positions[indices] + total / counts[:, None], indices


def _check_run(atoms, centers):
    """Whether a run was of these atoms, in any order (Wannier90 sorts them by species), and of occupied bands alone."""
    ours, theirs = sorted(atoms.symbols), sorted(centers.symbols)
    if ours != theirs:
        raise Wannier90Error(
            f"got centers of {Atoms(theirs).symbols}, need those of {Atoms(ours).symbols}; these are "
            "of another structure, give the files of this one"
        )
    away = centers.atoms.positions[:, None] - atoms.positions
    distances = find_mic(away.reshape(-1, 3), atoms.cell, atoms.pbc)[1].reshape(away.shape[:2])
    distances[np.not_equal.outer(centers.atoms.numbers, atoms.numbers)] = np.inf
    if (farthest := distances.min(axis=0).max()) > SAME_PLACE:
        raise Wannier90Error(
            f"got centers of a structure whose atoms are up to {farthest:.2f} Å away from these, need "
            f"less than {SAME_PLACE}; give the files of this structure"
        )
    if centers.n_bands is not None and centers.n_bands > len(centers.positions):
        raise Wannier90Error(
            f"got {len(centers.positions)} functions of {centers.n_bands} bands, need as many as "
            "functions; a metal has no such dipole, for an insulator leave the empty bands out"
        )


def _check_spreads(spreads, max_spread):
    if spreads is None:
        raise Wannier90Error("max_spread: got centers without spreads, need those of a .wout file; read that one")
    if spreads.max() > max_spread:
        raise Wannier90Error(
            f"center {int(spreads.argmax())}: got a spread of {spreads.max():.2f} Å^2, need at most "
            f"{max_spread:g}; reject this snapshot or localize again"
        )
