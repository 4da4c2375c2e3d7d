"""Hamiltonians of Wannier90: ``seed_hr.dat``, ``seed_tb.dat`` and the images of ``seed_wsvec.dat``.

The sparse variant of ``_hr.dat`` that WannierTools reads and writes is read as well.
"""

import re
import warnings
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from ase_mlelec.checks import printable
from ase_mlelec.io.wannier90.files import FOLDED, Wannier90Error, beside, check_end, check_size, checked_cell, read_text
from ase_mlelec.io.wannier90.tables import Lines, integers, numbers, shared_out

HERMITIAN = 1e-4  # eV; H(R) and H(-R)† may differ by as much, e.g. in the last digits of a file


class RealSpace(NamedTuple):
    """Matrices between Wannier functions, images folded in: multiply by phases and add, no degeneracies are left.

    Attributes
    ----------
    r_vectors : array [R, 3]
        Integers.
    matrices : array [R, W, W], eV
        ``<m 0|H|n R>``; a list of R CSR matrices from a sparse file.
    positions : array [R, W, W, 3], Å
        ``<m 0|r|n R>``, or None (``_hr.dat`` has none).
    cell : array [3, 3], Å
        Rows, or None.
    spin_degeneracy
        1 or 2 where the file has it (files of write_hr and write_tb), or None.
    folded
        Whether the file is one of write_hr or write_tb, which is complete without other files.
    """

    r_vectors: np.ndarray
    matrices: np.ndarray | list
    positions: np.ndarray | None = None
    cell: np.ndarray | None = None
    spin_degeneracy: int | None = None
    folded: bool = False


def read_hr(path: str | PathLike) -> RealSpace:
    """H(R) from ``seed_hr.dat``, with the images of ``seed_wsvec.dat`` beside it.

    Returns
    -------
    RealSpace
        Without positions and cell.

    Raises
    ------
    Wannier90Error
        For damaged files, degeneracies that do not belong to a mesh of k-points, H(R) that differs from H(-R)† by more
        than 1e-4 eV, and images of another run.

    Notes
    -----
    Warns where there is no wsvec file: on a coarse mesh bands between its points are then off by up to 1 eV.

    References
    ----------
    Wannier90's user guide, "seedname_hr.dat" and "seedname_wsvec.dat"; WannierTools' readHmnR.f90 for the sparse
    variant.
    """
    return _with_warning(*_parsed(path, _parse_hr))


def read_tb(path: str | PathLike) -> RealSpace:
    """H(R), ``<0|r|R>`` and the cell from ``seed_tb.dat``, with the images of ``seed_wsvec.dat`` beside it.

    Returns
    -------
    RealSpace

    Notes
    -----
    Warns and raises as read_hr does.
    """
    return _with_warning(*_parsed(path, _parse_tb))


def real_space(path: str | PathLike) -> tuple[RealSpace, str | None]:
    """Read ``seed_hr.dat`` or ``seed_tb.dat``, by the name: (RealSpace, text of a warning or None)."""
    return _parsed(path, _parse_tb if Path(path).name.removesuffix(".gz").endswith("_tb.dat") else _parse_hr)


def _with_warning(found, note):
    if note:
        warnings.warn(note, stacklevel=3)
    return found


def _parsed(path, parser):
    """(RealSpace, note) of a file, its images folded in."""
    text = read_text(path)
    lines = Lines(path, text)
    first = lines.next()
    r_vectors, degeneracies, matrices, positions, cell = parser(path, lines)
    check_end(path, text)
    spin = re.search(r"spin degeneracy ([12])\b", first) if FOLDED in first else None
    spin = int(spin[1]) if spin else None
    if scipy.sparse.issparse(matrices):
        wsvec = beside(path, "_wsvec.dat")
        note = f"{wsvec}: not applied to {path}, which is sparse: only models without images are" if wsvec else None
        return _sparse(path, r_vectors, degeneracies, matrices), note
    check_size(path, "elements of H(R)", matrices, "eV")
    values = matrices[..., None]
    if positions is not None:
        values = np.concatenate([values, check_size(path, "elements of <0|r|R>", positions, "Å")], axis=-1)
    r_vectors, values = _each_once(path, r_vectors, values / degeneracies[:, None, None, None])
    _check_hermitian(path, r_vectors, values[..., 0])
    wsvec, note = beside(path, "_wsvec.dat"), None
    if FOLDED not in first and wsvec:
        r_vectors, values = shared_out(wsvec, path, r_vectors, values)
        _check_hermitian(wsvec, r_vectors, values[..., 0])
    else:
        note = _without_images(path, first)
    positions = None if positions is None else values[..., 1:]
    return RealSpace(r_vectors, values[..., 0], positions, cell, spin, FOLDED in first), note


def _without_images(path, first):
    """Text of a warning for a file with unknown images, or None."""
    if FOLDED in first:
        return None
    name = re.sub(r"_(hr|tb)\.dat", "_wsvec.dat", Path(path).name)
    return f"{path}: no {name} beside it; without the images of minimal distance a coarse mesh interpolates badly"


# seed_hr.dat


def _head(lines):
    """(W, R, degeneracies [R]) from the line of W."""
    size, count = lines.integers(1, "functions")[0], lines.integers(1, "lattice vectors")[0]
    if min(size, count) < 1 or 2 * count > lines.length:
        raise lines.error(f"{size} functions, {count} lattice vectors")
    return size, count, _degeneracies(lines, count)


def _degeneracies(lines, count):
    """Degeneracies [R] of the lattice vectors."""
    found = np.array(lines.integers(count, "degeneracies"))
    if found.min() < 1 or abs((n_kpts := (1 / found).sum()) - round(n_kpts)) > 1e-6:
        raise Wannier90Error(
            f"{lines.path}: wrong degeneracies, {found.min()} to {found.max()}, need positive ones "
            "whose inverses add up to the number of k points; write the file again"
        )
    return found


def _parse_hr(path, lines):
    if _is_sparse(lines):
        return _parse_sparse(path, lines)
    size, count, degeneracies = _head(lines)
    start = lines.number
    table = numbers(path, lines.rest(), (count, size * size, 7), start)
    r_vectors = integers(path, "lattice vectors", table[:, :, :3])
    if (r_vectors != r_vectors[:, :1]).any():
        raise Wannier90Error(f"{path}: got rows of one lattice vector apart from each other; write it again")
    values = _in_place(path, table[..., 3:], size)
    return r_vectors[:, 0], degeneracies, values[..., 0] + 1j * values[..., 1], None, None


def _is_sparse(lines):
    """Whether what follows is the head of WannierTools' sparse variant, which has one number more in front.

    The dense head is W, R, degeneracies and W² R rows, the sparse one n, W, R, degeneracies and n rows: the number of
    rows tells them apart, and where none fits, whether degeneracies stand in the fourth line or the fifth.
    """
    mark, fits = lines.mark(), {}
    for sparse in (False, True):
        lines.back(mark)
        try:
            counts = [lines.integers(1, "counts")[0] for _ in range(2 + sparse)]
            degeneracies = lines.integers(min(counts[-1], lines.length), "degeneracies")
            needed = counts[0] if sparse else counts[0] ** 2 * counts[1]
            fits[sparse] = min(degeneracies, default=0) > 0 and lines.n_left() == needed
        except Wannier90Error:
            fits[sparse] = False
    lines.back(mark)
    if any(fits.values()):
        return not fits[False]
    rows = lines.rest().split("\n", 4)[1:4]
    lines.back(mark)
    widths = [len(re.match(r"[\s\d]*", row)[0].split()) for row in rows]
    return len(widths) == 3 and widths[1] == 1 < widths[2] and rows[0].split()[:1] != ["1"]


def _in_place(path, table, size):
    """Rows (m, n, values) of each lattice vector, [R, W W, 2 + V], as array [R, W, W, V]."""
    place = (integers(path, "numbers of functions", table[..., :2]) - 1) @ [size, 1]
    if (np.sort(place, axis=1) != np.arange(size * size)).any() or table[..., 1].max() > size:
        raise Wannier90Error(f"{path}: got rows m, n that are not each pair of {size} functions once; write it again")
    values = np.take_along_axis(table[..., 2:], np.argsort(place, axis=1)[..., None], axis=1)
    return values.reshape(len(table), size, size, -1)


def _parse_sparse(path, lines):
    """WannierTools' variant: the number of elements first, and only these elements; the rows of an R stay together."""
    n_elements, size, count = (lines.integers(1, what)[0] for what in ("elements", "functions", "lattice vectors"))
    if min(n_elements, size, count) < 1 or 2 * count > lines.length:
        raise lines.error(f"{n_elements} elements, {size} functions, {count} lattice vectors")
    degeneracies = _degeneracies(lines, count)
    start = lines.number
    table = numbers(path, lines.rest(), (n_elements, 7), start)
    vectors, pairs = (
        integers(path, what, table[:, part])
        for what, part in (("lattice vectors", slice(0, 3)), ("numbers of functions", slice(3, 5)))
    )
    if pairs.min() < 1 or pairs.max() > size or size > n_elements:
        raise Wannier90Error(
            f"{path}: got {n_elements} elements between functions {pairs.min()} to {pairs.max()}, "
            f"need 1 to {size} and one element of each function at least; write the file again"
        )
    new = np.concatenate([[True], (np.diff(vectors, axis=0) != 0).any(1)])
    block = np.cumsum(new) - 1
    if len(degeneracies) != block[-1] + 1:
        if (degeneracies != 1).any():
            raise Wannier90Error(
                f"{path}: got degeneracies of {count} lattice vectors and elements of "
                f"{block[-1] + 1}, which makes them ambiguous; write all lattice vectors"
            )
        degeneracies = np.ones(block[-1] + 1, dtype=int)
    check_size(path, "elements of H(R)", table[:, 5:], "eV")
    place = block * size + pairs[:, 0] - 1
    if len(np.unique(place * size + pairs[:, 1])) < n_elements:
        raise Wannier90Error(f"{path}: got an element of H(R) twice, need each once; write the file again")
    matrices = scipy.sparse.csr_array(
        (table[:, 5] + 1j * table[:, 6], (place, pairs[:, 1] - 1)), ((block[-1] + 1) * size, size)
    )
    return vectors[new], degeneracies, matrices, None, None


def _sparse(path, r_vectors, degeneracies, stacked):
    """RealSpace of matrices that are stacked below each other, CSR [R W, W]."""
    size = stacked.shape[1]
    stacked = stacked.tocoo()
    which, row = np.divmod(stacked.row.astype(np.int64), size)
    unique, place = np.unique(r_vectors, axis=0, return_inverse=True)
    which, values = place.ravel()[which], stacked.data / degeneracies[which]
    if len(np.unique((which * size + row) * size + stacked.col)) < len(values):
        raise Wannier90Error(f"{path}: got an element of H(R) twice, need each once; write the file again")
    matrices = scipy.sparse.csr_array((values, (which * size + row, stacked.col)), (len(unique) * size, size))
    matrices = [matrices[start : start + size] for start in range(0, matrices.shape[0], size)]
    _check_hermitian(path, unique, matrices)
    return RealSpace(unique, matrices)


def _each_once(path, r_vectors, values):
    """Lattice vectors and values [R, ...], of which some programs write zeros for a vector that was there before."""
    unique, place = np.unique(r_vectors, axis=0, return_inverse=True)
    if len(unique) == len(r_vectors):
        return r_vectors, values
    filled = values.reshape(len(values), -1).any(1)
    times = np.bincount(place.ravel(), weights=filled)
    if times.max() > 1:
        raise Wannier90Error(
            f"{path}: got the lattice vector {unique[times.argmax()].tolist()} twice, need each once; "
            "write the file again"
        )
    total = np.zeros((len(unique), *values.shape[1:]), dtype=values.dtype)
    np.add.at(total, place.ravel(), values)
    return unique, total


def _check_hermitian(path, r_vectors, matrices):
    """Refuse H(R) that is not H(-R)†; a vector without its opposite counts as zeros there."""
    place = {tuple(r): index for index, r in enumerate(r_vectors.tolist())}
    for index, r_vector in enumerate(r_vectors.tolist()):
        opposite = place.get(tuple(-x for x in r_vector))
        if opposite is not None and opposite < index:
            continue
        difference = matrices[index] if opposite is None else matrices[index] - matrices[opposite].conj().T
        if difference.size and (largest := abs(difference).max()) > HERMITIAN:
            what = "there is no H(-R)" if opposite is None else f"H(-R)† differs by {largest:.3g} eV"
            raise Wannier90Error(
                f"{path}: H(R) at R = {r_vector}: {what}, need a Hermitian Hamiltonian, to "
                f"{HERMITIAN:g} eV; the file is damaged or of another run: write it again"
            )


# seed_tb.dat


def cell_of_tb(path: str | PathLike) -> NDArray:
    """Cell [3, 3], Å, rows. Raises Wannier90Error where it cannot be read."""
    lines = Lines(path, read_text(path))
    lines.next()
    return _cell(path, lines)


def _cell(path, lines):
    try:
        return checked_cell([lines.floats(3) for _ in range(3)])
    except Wannier90Error:
        raise
    except ValueError as error:
        raise Wannier90Error(f"{path}: no readable cell ({printable(error)}); write it again") from None


def _parse_tb(path, lines):
    cell = _cell(path, lines)
    size, count, degeneracies = _head(lines)
    per_vector = 3 + 4 * size**2, 3 + 8 * size**2
    start = lines.number
    table = numbers(path, lines.rest(), (count * sum(per_vector),), start)
    energies, places = (part.reshape(count, -1) for part in np.split(table, [count * per_vector[0]]))
    r_vectors = integers(path, "lattice vectors", energies[:, :3])
    if (energies[:, :3] != places[:, :3]).any():
        raise Wannier90Error(f"{path}: got other lattice vectors for <0|r|R> than for H(R); write it again")
    values = _in_place(path, energies[:, 3:].reshape(count, -1, 4), size)
    places = _in_place(path, places[:, 3:].reshape(count, -1, 8), size)
    values, positions = values[..., 0] + 1j * values[..., 1], places[..., ::2] + 1j * places[..., 1::2]
    return r_vectors, degeneracies, values, positions, cell
