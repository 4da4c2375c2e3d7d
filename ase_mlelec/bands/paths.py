"""Paths along special points of a cell."""

import numbers
from collections.abc import Sequence

import numpy as np
from ase.cell import Cell
from ase.dft.kpoints import BandPath, parse_path_string
from numpy.typing import NDArray


def band_path(path: str | Sequence | BandPath | None, *, cell: NDArray, pbc: NDArray, npoints: int) -> BandPath:
    """Make a path of special points such as "GKMG"; None is ASE's choice, an ase BandPath is returned unchanged.

    Parameters
    ----------
    path : str, BandPath or None
    cell : array [3, 3], Å
    pbc : array [3] of bool
        Directions in which functions are coupled.
    npoints : int

    Raises
    ------
    ValueError
        For special points that the cell lacks; the message lists its special points. For too few points.
    """
    if isinstance(path, BandPath):
        return path
    if not (isinstance(npoints, numbers.Integral) and npoints > 1):
        raise ValueError(f"npoints: got {npoints!r}, need an integer above 1; ask for more points on the path")
    if not pbc.any():
        raise ValueError(
            "path: got a Hamiltonian that couples no cells, need a periodic one; it has the same levels "
            "at every k point, ask for eigenvalues([[0, 0, 0]])"
        )
    try:
        standard = Cell(cell).bandpath(npoints=0, pbc=pbc)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"path: ASE knows no special points of this cell ({str(error) or 'no Bravais lattice'}), need "
            "an ase BandPath; make one with ase.dft.kpoints.bandpath"
        ) from None
    known = sorted(standard.special_points)
    example = standard.path.partition(",")[0]
    if isinstance(path, str):
        names = [name for part in parse_path_string(path) for name in part]
        unknown = next((name for name in names if name not in known), None)
        if unknown or not names:
            raise ValueError(
                f"path: got {path!r}: {f'{unknown!r} is no' if unknown else 'no'} special point of this "
                f"cell, which are {' '.join(known)}; write for example {example}"
            )
    try:
        found = Cell(cell).bandpath(path, npoints=npoints, pbc=pbc)
    except (KeyError, TypeError, ValueError, IndexError):
        raise ValueError(
            f"path: got {path!r}, need special points of this cell, which are {' '.join(known)}, or an "
            f"ase BandPath; write for example {example}"
        ) from None
    # with few points ASE leaves out whole segments, and draws their ends at one place
    if np.count_nonzero(np.diff(found.get_linear_kpoint_axis()[0]) == 0) > found.path.count(","):
        raise ValueError(
            f"npoints: got {npoints}, too few for a point within each part of the path {found.path}; ask for more"
        )
    return found
