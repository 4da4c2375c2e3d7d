"""The images of minimal distance, ``seed_wsvec.dat``: where the elements of H(R) belong."""

from os import PathLike

import numpy as np

from ase_mlelec.io.wannier90.files import Wannier90Error, check_end, read_text
from ase_mlelec.io.wannier90.tables import integers, numbers


def shared_out(path: str | PathLike, hamiltonian, r_vectors, values) -> tuple:
    """Elements ``<m 0|n R>`` moved to the images R + T of wsvec, which share them equally.

    Parameters
    ----------
    path, hamiltonian
        The wsvec file, and the file of the Hamiltonian that it is beside.
    r_vectors : array [R, 3]
        Integers.
    values : array [R, W, W, V]

    Returns
    -------
    r_vectors : array [R', 3]
    values : array [R', W, W, V]

    Raises
    ------
    Wannier90Error
        For damaged files, and files that do not have each element of the Hamiltonian once.
    """
    size = values.shape[1]
    which, counts, shifts = _elements(path, hamiltonian, r_vectors, size)
    if len(which) != values[..., 0].size:
        raise _error(path, hamiltonian, f"{len(which)} elements of {values[..., 0].size}")
    which = np.repeat(which, counts)
    index, element = np.divmod(which, size * size)
    images, target = np.unique(r_vectors[index] + shifts, axis=0, return_inverse=True)
    folded = np.zeros((len(images), size * size, values.shape[-1]), dtype=complex)
    shares = 1 / np.repeat(counts, counts)
    np.add.at(folded, (target.ravel(), element), values.reshape(-1, values.shape[-1])[which] * shares[:, None])
    return images, folded.reshape(len(images), size, size, -1)


def _elements(path, hamiltonian, r_vectors, size):
    """(elements [M] of H(R), each once, numbers of their images [M], vectors T [sum of those numbers, 3])"""
    text = read_text(path)
    rest = text.partition("\n")[2]
    table = numbers(path, rest, (-1,), 1) if rest.strip() else np.zeros(0)
    table = integers(path, "lattice vectors, functions and counts", table).tolist()
    place = {tuple(r): index for index, r in enumerate(r_vectors.tolist())}
    which, counts, shifts, seen, at = [], [], [], set(), 0
    while at < len(table):
        *r_vector, m, n, count = table[at : at + 6] if at + 6 <= len(table) else (0, 0, 0, 0, 0, 0)
        element = (place.get(tuple(r_vector), -1) * size + m - 1) * size + n - 1
        where = f"element {m}, {n} of R = {r_vector}"
        if not (0 < m <= size and 0 < n <= size and element >= 0) or element in seen:
            raise _error(
                path,
                hamiltonian,
                "it ends within an element"
                if at + 6 > len(table)
                else f"{where} {'twice' if element in seen else 'is not in H(R)'}",
            )
        at += 6 + 3 * count
        if count < 1 or at > len(table):
            raise _error(path, hamiltonian, f"{where}: {count} images" + (", more than follow" if count > 0 else ""))
        seen.add(element)
        which.append(element)
        counts.append(count)
        shifts += table[at - 3 * count : at]
    check_end(path, text)
    return np.array(which, dtype=int), np.array(counts, dtype=int), np.array(shifts, dtype=int).reshape(-1, 3)


def _error(path, hamiltonian, cause):
    return Wannier90Error(
        f"{path}: truncated or of another run ({cause}); write it again, or move it away to read "
        f"{hamiltonian} without the images of minimal distance"
    )
