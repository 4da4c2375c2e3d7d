"""Densities as Gaussian cube files, on top of ASE's reader and writer: e/bohr^3 in the file, e/Å^3 here.

A cube file holds seven digits (five when pp.x writes it) and the cell to 1e-6 bohr per grid step; prefer
``espresso.read_filplot`` where there is a choice.
"""
import io
import re
from pathlib import Path

import numpy as np
from ase.io.cube import read_cube as read_ase_cube
from ase.io.cube import write_cube as write_ase_cube

from ase_mlelec import units
from ase_mlelec.io.atomic import replacing


def read_cube(path):
    """Read a density.

    Returns (Atoms, array [G1, G2, G3] in e/Å^3).  Atoms are moved so that the first grid point is the origin.

    Raises ValueError for a missing or truncated file, and for one with several functions.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a Gaussian cube file")
    try:
        text = path.read_text(errors="replace")
        counts = [int(line.split()[0]) for line in text.splitlines()[3:6]]
        # Fortran prints 1e-100 as 1.0-100
        found = read_ase_cube(io.StringIO(re.sub(r"(?<=\d)(?=[-+]\d{3}\b)", "E", text)))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: truncated, or not a cube file ({error}); write it again") from None
    if min(counts) <= 0:
        raise ValueError(f"{path}: got grid counts {counts}, need positive ones; lengths in Å are not supported")
    if len(found["datas"]) != 1:
        raise ValueError(f"{path}: got {len(found['datas'])} functions, need one; write them to files of their own")
    atoms = found["atoms"]
    atoms.positions -= found["origin"]
    return atoms, found["data"] / units.BOHR**3


def write_cube(path, atoms, data, comment="Electron density in e/bohr^3"):
    """Write a density.

    atoms : ase.Atoms with a cell; grid point (i, j, k) lies at the fractions i/G1, j/G2, k/G3 of its vectors
    data : array [G1, G2, G3], e/Å^3
    comment : str, the first line of the file

    Raises ValueError for data of another shape, NaN, and a cell without volume.
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


def read_cubes(paths):
    """Local density of states from the cube files of pp.x (plot_num = 3, output_format = 6), one file per energy.

    paths : sequence of paths, S of them, in the order of the energies

    Returns (Atoms, array [G1, G2, G3, S] in 1/(eV Å^3)), converted from states/(Ry bohr^3).

    Raises ValueError as read_cube does, and for files of different grids, cells or atoms.
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
