"""Densities as Gaussian cube files: e/bohr^3 in the file, e/Å^3 here.

A cube file holds seven digits (five when pp.x writes it) and the cell to 1e-6 bohr per grid step; prefer
``espresso.read_filplot`` where there is a choice.
"""

import math
from collections.abc import Sequence
from os import PathLike

import numpy as np
from ase import Atoms
from ase.io.cube import write_cube as write_ase_cube
from numpy.typing import ArrayLike

from ase_mlelec import units
from ase_mlelec.atomic_write import replacing
from ase_mlelec.checks import check_count, printable
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.text import fortran_floats, read_numbers, read_text

LARGEST = 1e6  # bohr


def read_cube(path: str | PathLike) -> tuple[Atoms, np.ndarray]:
    """Read a density.

    Returns
    -------
    tuple
        (Atoms, array [G1, G2, G3] in e/Å^3). Atoms are moved so that the first grid point is the origin.

    Raises
    ------
    ValueError
        For a missing, truncated or damaged file, for one with several functions, and for lengths in Å, which negative
        numbers of points stand for: then it is not known what the function is per.

    References
    ----------
    Gaussian's cubegen, for the layout.
    """
    text = read_text(path, "give a Gaussian cube file")
    try:
        n_atoms, n_functions, counts, origin, vectors, rest = _header(text)
    except (ValueError, IndexError) as error:
        raise _no_cube(path, printable(error)) from None
    if min(counts) <= 0:
        raise ValueError(
            f"{path}: got grid counts {counts}, need positive ones; lengths in Å are not supported, write "
            "the file with lengths in bohr"
        )
    # a row of an atom has five numbers, and a value of the function is one digit and one blank
    check_count(path, "atoms", abs(n_atoms), 10)
    check_count(path, "grid points", math.prod(counts), 2)
    numbers, positions, rest = _atoms(path, rest, abs(n_atoms))
    cell = vectors * np.array(counts)[:, None]
    if not abs(np.linalg.det(cell)) > 1e-6:
        raise ValueError(f"{path}: the grid vectors span no volume; the file is damaged: write it again")
    if n_atoms < 0:  # then what the functions are is told
        names, _, rest = rest.partition("\n")
        n_functions = max(n_functions, _named_functions(path, names))
    if n_functions != 1:
        raise ValueError(f"{path}: got {n_functions} functions, need one; write them to files of their own")
    if not _ends(rest):
        raise _no_cube(
            path, "the last line does not end, so that digits may be missing", ", or end the line if it is whole"
        )
    values = read_numbers(path, "the part of the function", rest)
    if len(values) != math.prod(counts):
        raise _no_cube(path, f"got {len(values)} numbers on a grid of {counts}")
    atoms = Atoms(numbers, (positions - origin) * units.BOHR, cell=cell * units.BOHR, pbc=True)
    return atoms, values.reshape(counts) / units.BOHR**3


def _no_cube(path, cause, remedy=""):
    return ValueError(f"{path}: truncated, or not a cube file ({cause}); write it again{remedy}")


def _header(text):
    """Numbers of atoms (negative: the functions have names), of functions, of grid points; origin, vectors; the rest.

    Raises
    ------
    ValueError or IndexError
        Where a line has not what it needs.
    """
    lines = text.split("\n", 6)
    if len(lines) < 7:
        raise ValueError(f"{len(lines)} lines")
    first, *rows = [line.split() for line in lines[2:6]]
    n_functions = int(first[4]) if len(first) > 4 else 1
    places = np.array([fortran_floats(" ".join(row[1:4])) for row in (first, *rows)])
    if places.shape != (4, 3) or not (np.abs(places) < LARGEST).all():
        raise ValueError("origin or grid vectors are not three finite numbers each")
    return int(first[0]), n_functions, [int(row[0]) for row in rows], places[0], places[1:], lines[6]


def _atoms(path, text, n_atoms):
    """(atomic numbers, positions [N, 3], the rest of the text) from rows of number, charge and position."""
    *rows, rest = text.split("\n", n_atoms)
    if len(rows) < n_atoms:
        raise _no_cube(path, f"{len(rows)} of {n_atoms} atoms")
    table = read_numbers(path, "the part of the atoms", "\n".join(rows))
    if any(len(row.split()) != 5 for row in rows):
        raise _no_cube(path, "got a row of an atom without five numbers, need atomic number, charge and position")
    table = table.reshape(-1, 5)
    numbers = table[:, 0].astype(int)
    if not ((table[:, 0] == numbers) & (numbers >= 0) & (numbers <= 118)).all() or (np.abs(table) > LARGEST).any():
        raise ValueError(
            f"{path}: got atomic numbers that are none, or positions beyond {LARGEST:g} bohr; the file is "
            "damaged: write it again"
        )
    return numbers, table[:, 2:], rest


def _ends(text):
    """Whether the last number of a text is whole: ASE ends no last line, but all its numbers have one length."""
    if text.rstrip(" ").endswith("\n"):
        return True
    lengths = [len(word.lstrip("+-")) for word in text[-200:].split()[1:]]
    return len(lengths) > 2 and len(set(lengths)) == 1


def _named_functions(path, line):
    """How many functions the line after the atoms names."""
    names = line.split()
    if not names or not names[0].isdecimal() or len(names) != 1 + int(names[0][:9]):
        raise ValueError(
            f"{path}: got the line '{printable(line, 60)}' after the atoms, need the number of functions "
            "and one number for each, as the number of atoms is negative; write the functions to files "
            "of their own"
        )
    return int(names[0])


@formerly_positional("comment")
def write_cube(
    path: str | PathLike, atoms: Atoms, data: ArrayLike, *, comment: str = "Electron density in e/bohr^3"
) -> None:
    """Write a density.

    Parameters
    ----------
    atoms : ase.Atoms with a cell
        Grid point (i, j, k) lies at the fractions i/G1, j/G2, k/G3 of its vectors.
    data : array [G1, G2, G3], e/Å^3
    comment : str
        The first line of the file.

    Raises
    ------
    ValueError
        For data of another shape, NaN, and a cell without volume.
    """
    data = np.asarray(data, dtype=float)
    if data.ndim != 3 or not data.size:
        raise ValueError(f"data: got shape {data.shape}, need [G1, G2, G3]; write one function per file")
    if not np.isfinite(data).all():
        raise ValueError("data: got NaN or infinite values, need finite ones; check where they come from")
    if atoms.cell.rank < 3:
        raise ValueError(f"atoms: got a cell of rank {atoms.cell.rank}, need three vectors; set atoms.cell")
    with replacing(path) as partial, open(partial, "w") as file:
        write_ase_cube(file, atoms, data * units.BOHR**3, comment=" ".join(comment.split()))
        file.write("\n")


def read_cubes(paths: Sequence[str | PathLike]) -> tuple[Atoms, np.ndarray]:
    """Local density of states from the cube files of pp.x (plot_num = 3, output_format = 6), one file per energy.

    Parameters
    ----------
    paths : sequence of paths
        S of them, in the order of the energies.

    Returns
    -------
    tuple
        (Atoms, array [G1, G2, G3, S] in 1/(eV Å^3)), converted from states/(Ry bohr^3).

    Raises
    ------
    ValueError
        As read_cube does, and for files of different grids, cells or atoms.
    """
    ldos = None
    for index, path in enumerate(paths):
        atoms, data = read_cube(path)
        if ldos is None:
            ldos, first = np.empty((*data.shape, len(paths))), atoms
        what = _difference(first, atoms, ldos.shape[:3], data.shape)
        if what:
            raise ValueError(f"{path}: {what} differ from those of {paths[0]}; give the files of one pp.x run")
        ldos[..., index] = data
    if ldos is None:
        raise ValueError("paths: got no file, need one per energy")
    return first, ldos / units.RYDBERG


def _difference(first, other, shape, other_shape):
    """Name of what differs between two cube files, or None."""
    if shape != other_shape:
        return "the grid points"
    if not np.allclose(first.cell, other.cell, rtol=0, atol=1e-5):
        return "the cell vectors"
    if len(first) != len(other) or (first.numbers != other.numbers).any():
        return "the atoms"
    return None if np.allclose(first.positions, other.positions, rtol=0, atol=1e-5) else "the positions of the atoms"
