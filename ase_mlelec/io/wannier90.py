"""Read and write the files of Wannier90: centres and spreads, Hamiltonians, the input file.

Every reader takes files that are compressed with gzip as well (``seed_hr.dat.gz``).

Source: Wannier90 3.1 output; its user guide, chapter "Files".
"""
import gzip
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from ase_mlelec import units

LENGTHS = {"ang": 1.0, "bohr": units.BOHR}      # unit in the files -> Å
AMBIGUOUS = 0.05        # Å; a centre whose two nearest atoms are as close as this belongs to neither


class Wannier90Error(ValueError):
    """A Wannier90 file or its contents cannot be used; the message names the cause and the remedy."""


class Centres(NamedTuple):
    """Wannier functions of one run.

    positions : array [W, 3], Å, as Wannier90 left them: in any cell
    spreads : array [W], Å^2, or None where the file has none (``_centres.xyz``)
    symbols : list of str, length N
    atoms : ase.Atoms of the run, with cell and pbc from ``.wout``, without them from ``_centres.xyz``
    """
    positions: np.ndarray
    spreads: np.ndarray | None
    symbols: list
    atoms: Atoms


def read_text(path):
    """Contents of a text file, compressed or not.

    Raises Wannier90Error when it is missing or not text.
    """
    path = Path(path)
    if not path.is_file():
        raise Wannier90Error(f"{path}: no such file; check the name and the folder")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode()
    except (EOFError, OSError, UnicodeDecodeError) as error:
        raise Wannier90Error(f"{path}: truncated or not text ({error}); copy or write it again") from None


# Centres

def read_centres(path):
    """Centres and spreads from ``seed.wout`` (the final state), or centres from ``seed_centres.xyz``.

    Returns Centres.

    Raises Wannier90Error when the run did not finish or the file is something else.
    """
    text = read_text(path)
    name = Path(path).name.removesuffix(".gz")
    return _centres_of_xyz(path, text) if name.endswith(".xyz") else _centres_of_wout(path, text)


def _centres_of_xyz(path, text):
    lines = text.splitlines()
    try:
        rows = [line.split() for line in lines[2:2 + int(lines[0])]]
        table = np.array([row[1:4] for row in rows], dtype=float).reshape(len(rows), 3)
        if len(rows) != int(lines[0]):
            raise ValueError(f"{len(rows)} rows of {int(lines[0])}")
    except (ValueError, IndexError) as error:
        raise Wannier90Error(f"{path}: truncated or not an xyz file ({error}); set write_xyz and run again") from None
    is_centre = np.array([row[0] == "X" for row in rows])
    if not is_centre.any():
        raise Wannier90Error(f"{path}: no centre (X), need seed_centres.xyz of Wannier90; set write_xyz")
    symbols = [_symbol(row[0]) for row in rows if row[0] != "X"]
    return Centres(table[is_centre], None, symbols, Atoms(symbols, table[~is_centre]))


_NUMBER = r"\s*([-+\d.Ee]+)\s*"
_CENTRE = re.compile(rf"WF centre and spread\s+\d+\s+\({_NUMBER},{_NUMBER},{_NUMBER}\){_NUMBER}$", re.MULTILINE)
_VECTOR = re.compile(rf"^\s*a_[123]{_NUMBER}{_NUMBER}{_NUMBER}$", re.MULTILINE)
_SITE = re.compile(r"^ \|\s*([A-Z][a-z]?)\S*\s+\d+\s+([-\d.]+)\s+([-\d.]+)\s+([-\d.]+)\s+\|", re.MULTILINE)


def _centres_of_wout(path, text):
    head, found, final = text.rpartition("Final State")
    unit = re.search(r"Lattice Vectors \((Ang|Bohr)\)", head)
    count = re.search(r"Number of Wannier Functions\s*:\s*(\d+)", head)
    final = final.partition("Sum of centres and spreads")
    if not (found and unit and count and final[1]):
        raise Wannier90Error(f"{path}: no final state; the run did not finish, or this is not a .wout file")
    table = np.array(_CENTRE.findall(final[0]), dtype=float).reshape(-1, 4)
    if len(table) != int(count[1]):
        raise Wannier90Error(f"{path}: got {len(table)} readable centres, need {count[1]}; run Wannier90 again")
    scale = LENGTHS[unit[1].lower()]
    cell = np.array(_VECTOR.findall(head)[-3:], dtype=float) * scale
    sites = _SITE.findall(head)
    symbols = [site[0] for site in sites]
    fractions = np.array([site[1:] for site in sites], dtype=float).reshape(-1, 3)
    atoms = Atoms(symbols, scaled_positions=fractions, cell=cell, pbc=True)
    return Centres(table[:, :3] * scale, table[:, 3] * scale**2, symbols, atoms)


def _symbol(label):
    """Chemical symbol of a label such as Fe1 or si_a."""
    found = re.match("[A-Za-z][a-z]?", label)
    return found.group().capitalize() if found else "X"


def nearest_atoms(atoms, positions):
    """The atom nearest to each position by minimum image.

    atoms : ase.Atoms
    positions : array [W, 3], Å, in any cell

    Returns (owner [W] index of the atom, offset [W, 3] Å from the atom to the nearest image of the position).

    Raises Wannier90Error for a position that has two atoms at the same distance.
    """
    positions = np.asarray(positions, dtype=float)
    away = positions[:, None] - atoms.positions
    vectors, distances = find_mic(away.reshape(-1, 3), atoms.cell, atoms.pbc)
    vectors, distances = vectors.reshape(away.shape), distances.reshape(away.shape[:2])
    order = np.argsort(distances, axis=1)
    ranked = np.take_along_axis(distances, order, axis=1)
    if ranked.shape[1] > 1 and (close := ranked[:, 1] - ranked[:, 0] < AMBIGUOUS).any():
        at = int(np.argmax(close))
        raise Wannier90Error(f"centre {at}: got atoms {order[at, 0]} and {order[at, 1]} both at {ranked[at, 0]:.2f} Å, "
                             "need one nearest atom; change the projections or leave one of the species out")
    return order[:, 0], vectors[np.arange(len(positions)), order[:, 0]]


def assign_centres(atoms, centres, per_species, max_spread=None):
    """Share the Wannier centres out among the atoms that they are nearest to, and average them.

    atoms : ase.Atoms with cell and pbc
    centres : Centres, or array [W, 3] in Å
    per_species : dict of int, centres per atom, e.g. {"O": 4}; species that are not named get none
    max_spread : float, Å^2; a larger spread is an error, because the localization fell into a wrong minimum

    Returns (centroids [n, 3] Å, the mean of each atom's centres, unwrapped: next to the atom even where that lies
    outside of the cell; indices [n] of those atoms, increasing).

    Raises Wannier90Error when an atom gets another number of centres, for a centre that is as near to one atom as to
    another, for spreads above max_spread, and for max_spread without spreads.

    Source: Zhang et al. 2020, Phys. Rev. B 102, 041121(R): centroids of the four centres around each oxygen.
    """
    positions, spreads = (centres.positions, centres.spreads) if isinstance(centres, Centres) else (centres, None)
    if max_spread is not None:
        _check_spreads(spreads, max_spread)
    wanted = np.array([per_species.get(symbol, 0) for symbol in atoms.symbols])
    indices = np.flatnonzero(wanted)
    if len(positions) != wanted.sum() or not len(indices):
        raise Wannier90Error(f"got {len(positions)} centres, need {wanted.sum()} for {per_species} in {atoms.symbols}; "
                             "check num_wann and per_species")
    owner, offset = nearest_atoms(atoms[indices], positions)
    counts = np.bincount(owner, minlength=len(indices))
    if (wrong := counts != wanted[indices]).any():
        at = int(np.argmax(wrong))
        atom = indices[at]
        raise Wannier90Error(f"centres do not split: got {counts[at]} nearest to atom {atom} ({atoms.symbols[atom]}), "
                             f"need {wanted[atom]}; reject this snapshot or localize again")
    total = np.zeros((len(indices), 3))
    np.add.at(total, owner, offset)
    return atoms.positions[indices] + total / counts[:, None], indices


def _check_spreads(spreads, max_spread):
    if spreads is None:
        raise Wannier90Error("max_spread: got centres without spreads, need those of a .wout file; read that one")
    if spreads.max() > max_spread:
        raise Wannier90Error(f"centre {int(spreads.argmax())}: got a spread of {spreads.max():.2f} Å^2, need at most "
                             f"{max_spread:g}; reject this snapshot or localize again")
