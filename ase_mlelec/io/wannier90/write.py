"""Writing Hamiltonians in the formats of Wannier90."""

from os import PathLike

import numpy as np
from numpy.typing import ArrayLike

from ase_mlelec.atomic_write import replacing
from ase_mlelec.checks import check_finite
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.wannier90.files import FOLDED, Wannier90Error


@formerly_positional("spin_degeneracy")
def write_hr(
    path: str | PathLike, r_vectors: ArrayLike, matrices: ArrayLike, *, spin_degeneracy: int | None = None
) -> None:
    """Write H(R) as ``seed_hr.dat``, all degeneracies 1; no wsvec file is needed.

    Parameters
    ----------
    r_vectors : array [R, 3]
        Integers.
    matrices : array [R, W, W], eV
    spin_degeneracy
        1 or 2, told in the first line, or None.

    Raises
    ------
    Wannier90Error
        For NaN and infinity.
    """
    matrices = np.asarray(matrices)
    _check_written(path, matrices)
    parts = [_rows(r_vectors, matrices[..., None], with_vector=True)]
    _write(path, [], r_vectors, parts, len(matrices[0]), spin_degeneracy)


@formerly_positional("spin_degeneracy")
def write_tb(
    path: str | PathLike,
    cell: ArrayLike,
    r_vectors: ArrayLike,
    matrices: ArrayLike,
    positions: ArrayLike,
    *,
    spin_degeneracy: int | None = None,
) -> None:
    """Write cell, H(R) and ``<0|r|R>`` as ``seed_tb.dat``, all degeneracies 1; no wsvec file is needed.

    Parameters
    ----------
    cell : array [3, 3], Å
        Rows.
    r_vectors : array [R, 3]
        Integers.
    matrices : array [R, W, W], eV
    positions : array [R, W, W, 3], Å
    spin_degeneracy
        1 or 2, told in the first line, or None.

    Raises
    ------
    Wannier90Error
        For NaN and infinity.
    """
    matrices, positions = np.asarray(matrices), np.asarray(positions)
    _check_written(path, matrices, positions, np.asarray(cell))
    lines = [" ".join(f"{x:.12f}" for x in vector) for vector in np.asarray(cell)]
    parts = [_rows(r_vectors, values, with_vector=False) for values in (matrices[..., None], positions)]
    _write(path, lines, r_vectors, parts, len(matrices[0]), spin_degeneracy)


def _check_written(path, *arrays):
    for array in arrays:
        check_finite(path, "what to write", np.stack([array.real, array.imag]), Wannier90Error)


def _rows(r_vectors, values, with_vector):
    """Lines of a table, m running fastest, with the lattice vector in every line or above its block."""
    size = values.shape[1]
    for r_vector, block in zip(np.asarray(r_vectors), values):
        head = " ".join(f"{x:4d}" for x in r_vector)
        if not with_vector:
            yield f"\n{head}"
        for n in range(size):
            for m in range(size):
                columns = " ".join(f"{x.real:18.12f} {x.imag:18.12f}" for x in block[m, n])
                yield f"{head if with_vector else ''}{m + 1:5d}{n + 1:5d} {columns}"


def _write(path, lines, r_vectors, parts, size, spin_degeneracy):
    count = len(r_vectors)
    spin = "" if spin_degeneracy is None else f", spin degeneracy {spin_degeneracy}"
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(f" written by ase-mlelec, {FOLDED}{spin}\n")
        file.writelines(f"{line}\n" for line in [*lines, size, count])
        file.writelines("    1" * min(15, count - start) + "\n" for start in range(0, count, 15))
        for part in parts:
            file.writelines(f"{line}\n" for line in part)
