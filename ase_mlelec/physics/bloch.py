"""H(k) of a Hamiltonian in real space: sums over lattice vectors."""

import functools
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ase_mlelec.physics.arrays import check_finite


def is_invariant(kpts: NDArray) -> bool:
    """Whether -k equals k up to a reciprocal lattice vector."""
    return (2 * np.asarray(kpts) % 1 == 0).all(-1)


HERMITIAN = 1e-4  # eV; H(R) and H(-R)† may differ by as much, e.g. in the last digits of a file
_FARTHEST = 2**31  # lattice vectors
_DENSE_FILL = 0.2  # share of elements that are not zero; above it dense products are faster


class BlochSum:
    """A(k) = Σ_R exp(2πi k·R) A(R) for matrices with A(-R) = A(R)†.

    The lower triangles of all A(R) share one sparsity pattern, the union over R. Their values at many k are one
    product of the phases with the table of A(R) on that pattern, and A(k) is Hermitian by construction.

    Parameters
    ----------
    r_vectors : array [R, 3]
        Integers, every R with its -R.
    matrices : array [R, W, W], or sequence of R sparse matrices, eV
        Rounding is averaged out, (A(R) + A(-R)†)/2.

    Raises
    ------
    ValueError
        For shapes that do not match, NaN, lattice vectors given twice, and H(R) that differs from H(-R)† by more than
        1e-4 eV.
    """

    def __init__(self, r_vectors: ArrayLike, matrices: Any) -> None:
        given, stacked = _stack(r_vectors, matrices)
        self.size = stacked.shape[1]
        self.r_vectors, self.stacked = _hermitian(given, stacked)
        deviation = abs(self.stacked - _rows_of(stacked, given, self.r_vectors)).max()
        if 2 * deviation > HERMITIAN:
            raise ValueError(
                f"matrices: got H(R) and H(-R)† that differ by {2 * deviation:.3g} eV, need a Hermitian "
                "Hamiltonian; average them with physics.tight_binding.hermitian_part if that is intended"
            )
        self.is_real = not np.iscomplexobj(self.stacked.data) or not self.stacked.data.imag.any()
        if self.is_real:
            self.stacked = self.stacked.real

    @property
    def matrices(self) -> NDArray | list:
        """A(R) [R, W, W]: a dense array where more than a fifth of the elements are nonzero, else a list of CSR matrices."""
        return self.toarray() if self.stacked.nnz > _DENSE_FILL * np.prod(self.stacked.shape) else self.tolist()

    def toarray(self) -> NDArray:
        """A(R), dense array [R, W, W]."""
        return self.stacked.toarray().reshape(-1, self.size, self.size)

    def tolist(self) -> list:
        """A(R), list of R CSR matrices [W, W]."""
        return [self.stacked[start : start + self.size] for start in range(0, self.stacked.shape[0], self.size)]

    @functools.cached_property
    def _table(self):
        """(pattern [P] as ``row*W`` + column of the lower triangle, what cos and sin of 2π k·R multiply there).

        A pair of R and -R gives cos (A(R) + A(-R)) + sin i(A(R) - A(-R)), so that half of the phases are enough, and
        all products are real. With H pairs, dense: tensor [2 H, P] (real A) or [2 H, 2 P]; sparse: two CSR [P, 2 H].
        """
        elements = self.stacked.tocoo()
        which, row = np.divmod(elements.row.astype(np.int64), self.size)
        lower = row >= elements.col
        pattern, place = np.unique(row[lower] * self.size + elements.col[lower], return_inverse=True)
        n_pairs, which = len(self.r_vectors) // 2 + 1, which[lower] - len(self.r_vectors) // 2
        even, sign = elements.data[lower], np.sign(which)
        taken = np.zeros(n_pairs * len(pattern), dtype=bool)
        taken[abs(which) * len(pattern) + place] = True
        if taken.sum() > _DENSE_FILL * taken.size:
            odd = (1 if self.is_real else 1j) * sign * even  # imaginary numbers of real A are kept as real ones
            dense = np.zeros((2 * n_pairs, len(pattern)), dtype=even.dtype)
            for each in (-1, 0, 1):  # an element of A(R) and the one of A(-R) are added up
                some = sign == each
                dense[abs(which[some]), place[some]] += even[some]
                dense[abs(which[some]) + n_pairs, place[some]] += odd[some]
            return pattern, torch.from_numpy(dense if self.is_real else dense.view(float))
        table = scipy.sparse.csr_array(
            (
                np.concatenate([even.astype(complex), 1j * sign * even]),
                (np.tile(place, 2), np.concatenate([abs(which), abs(which) + n_pairs])),
            ),
            (len(pattern), 2 * n_pairs),
        )
        parts = table.real.copy(), table.imag.copy()
        for part in parts:
            part.eliminate_zeros()
        return pattern, parts

    @functools.cached_property
    def _csr(self):
        """(indices, indptr, order) of the full matrix: its data are (values, conjugate values)[order]."""
        pattern = self._table[0]
        row, column = np.divmod(pattern, self.size)
        mirrored = np.flatnonzero(row != column)
        rows, columns = np.concatenate([row, column[mirrored]]), np.concatenate([column, row[mirrored]])
        order = np.lexsort((columns, rows))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self.size))])
        order = np.concatenate([np.arange(len(pattern)), len(pattern) + mirrored])[order]
        return columns[np.argsort(rows * self.size + columns)], indptr, order

    @functools.cached_property
    def _diagonal(self):
        """Where the pattern is on the diagonal."""
        row, column = np.divmod(self._table[0], self.size)
        return torch.from_numpy(np.flatnonzero(row == column))

    def _values(self, kpts, device, vectors=None):
        values = self._product(kpts, device, vectors)
        torch.view_as_real(values)[..., 1].index_fill_(1, self._diagonal.to(device), 0.0)  # zero but for rounding
        return values

    def _product(self, kpts, device, vectors):
        """Values on the pattern, tensor [K, P]; with vectors [R] each A(R) is multiplied by i times its entry."""
        middle = len(self.r_vectors) // 2
        turns = torch.from_numpy(kpts).to(device) @ torch.from_numpy(self.r_vectors[middle:].T.astype(float)).to(device)
        angle = 2 * torch.pi * (turns - turns.round())
        even, odd = angle.cos(), angle.sin()
        if vectors is not None:
            vectors = torch.from_numpy(vectors[middle:]).to(device)
            even, odd = -odd * vectors, even * vectors
        table = self._table[1]
        if not isinstance(table, torch.Tensor):  # SciPy: PyTorch's sparse products are slower than its dense ones
            phases = np.ascontiguousarray(torch.cat([even, odd], dim=1).cpu().numpy().T)
            values = (table[0] @ phases + 1j * (table[1] @ phases)).T
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)
        table = table.to(device)
        if self.is_real:
            return torch.complex(even @ table[: len(table) // 2], odd @ table[len(table) // 2 :])
        return torch.view_as_complex((torch.cat([even, odd], dim=1) @ table).reshape(len(kpts), -1, 2))

    def lower(
        self,
        kpts: NDArray,
        device: str | torch.device = "cpu",
        vectors: NDArray | None = None,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """A(k) with zeros above the diagonal, which eigensolvers do not look at: tensor [K, W, W].

        ``out`` is the result of an earlier call for as many or more k-points, which is overwritten.
        """
        values = self._values(kpts, device, vectors)
        pattern = self._table[0]
        if out is None:
            out = torch.zeros(len(kpts), self.size, self.size, dtype=torch.complex128, device=device)
        matrix = out[: len(kpts)]
        flat = matrix.view(len(kpts), self.size * self.size)
        if flat.device.type == "cpu":  # NumPy takes a third of the time
            for row, found in zip(flat.numpy(), values.numpy()):
                row[pattern] = found
        else:
            flat[:, torch.from_numpy(pattern).to(device)] = values
        return matrix

    def dense(self, kpts: NDArray, device: str | torch.device = "cpu", vectors: NDArray | None = None) -> Tensor:
        """A(k), tensor [K, W, W]; with vectors [R] the sum of i vectors_R exp(2πi k·R) A(R)."""
        lower = self.lower(kpts, device, vectors)
        return lower + lower.tril(-1).mH

    def gradient(self, kpts: NDArray, cell: NDArray, device: str | torch.device = "cpu") -> Tensor:
        """dA/dk, tensor [K, 3, W, W], eV Å, k in 1/Å including the 2π."""
        vectors = self.r_vectors @ np.asarray(cell, dtype=float)
        return torch.stack([self.dense(kpts, device, vectors[:, axis].copy()) for axis in range(3)], dim=1)

    def sparse(self, k: NDArray) -> scipy.sparse.sparray:
        """A(k) at one point [3], CSR [W, W]; real where A(R) is real and -k equals k."""
        values = self._values(np.asarray(k, dtype=float)[None], "cpu")[0].numpy()
        if self.is_real and is_invariant(k):
            values = values.real.copy()
        indices, indptr, order = self._csr
        return scipy.sparse.csr_array(
            (np.concatenate([values, values.conj()])[order], indices, indptr), (self.size, self.size)
        )


def hermitian_part(r_vectors: ArrayLike, matrices: Any) -> tuple:
    """(A(R) + A(-R)†)/2 of matrices that are not Hermitian, such as predictions of i -> j and j -> i by themselves.

    Parameters
    ----------
    r_vectors : array [R, 3]
        Integers.
    matrices : array [R, W, W], or sequence of R sparse matrices

    Returns
    -------
    tuple
        (r_vectors [R', 3] with -R for every R, matrices: list of R' CSR matrices).

    Raises
    ------
    ValueError
        For shapes that do not match, NaN, and lattice vectors given twice.
    """
    given, stacked = _stack(r_vectors, matrices)
    size = stacked.shape[1]
    kept, stacked = _hermitian(given, stacked)
    return kept, [stacked[start : start + size] for start in range(0, stacked.shape[0], size)]


def from_elements(n_vectors: int, size: int, which: NDArray, row: NDArray, column: NDArray, values: NDArray) -> list:
    """List of n_vectors CSR matrices [W, W] from their elements [M]: lattice vector, row, column, value (added up)."""
    stacked = scipy.sparse.csr_array((values, (which * size + row, column)), (n_vectors * size, size))
    return [stacked[start : start + size] for start in range(0, n_vectors * size, size)]


def _stack(r_vectors, matrices):
    """(r_vectors [R, 3] as integers, CSR [R W, W] of all matrices below each other), checked."""
    try:
        given = np.asarray(r_vectors, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(
            "r_vectors: got what is no array of numbers, need integers [R, 3]; use reduced coordinates"
        ) from None
    if (
        given.ndim != 2
        or given.shape[1] != 3
        or not len(given)
        or not (abs(given) < _FARTHEST).all()
        or (given != np.round(given)).any()
    ):
        raise ValueError(f"r_vectors: got shape {list(given.shape)}, need integers [R, 3]; use reduced coordinates")
    r_vectors = given.astype(np.int64)
    if len(np.unique(r_vectors, axis=0)) < len(r_vectors):
        raise ValueError("r_vectors: got a lattice vector twice, need each once; add its matrices up")
    if matrices is None or isinstance(matrices, str):
        raise ValueError("matrices: got none, need one square matrix [W, W] per lattice vector")
    if not isinstance(matrices, np.ndarray):
        matrices = [matrix if scipy.sparse.issparse(matrix) else np.asarray(matrix) for matrix in matrices]
    shapes = {tuple(matrix.shape) for matrix in matrices}
    if (
        len(matrices) != len(r_vectors)
        or len(shapes) != 1
        or len(set(*shapes)) != 1
        or len(*shapes) != 2
        or 0 in max(shapes)
        or any(matrix.dtype.kind not in "biufc" for matrix in matrices)
    ):
        raise ValueError(
            f"matrices: got {len(matrices)} of shapes {sorted(shapes)}, need {len(r_vectors)} that are "
            "[W, W] of numbers; give one square matrix per lattice vector"
        )
    size = shapes.pop()[0]
    if isinstance(matrices, np.ndarray):
        stacked = scipy.sparse.csr_array(matrices.reshape(-1, size))
    else:
        stacked = scipy.sparse.csr_array(scipy.sparse.vstack([scipy.sparse.csr_array(matrix) for matrix in matrices]))
    stacked = stacked.astype(np.complex128 if np.iscomplexobj(stacked.data) else np.float64)
    check_finite(matrices=torch.from_numpy(stacked.data))
    return r_vectors, stacked


def _rows_of(stacked, r_vectors, wanted):
    """Stacked matrices in the order of other lattice vectors [R', 3]; zero for missing vectors."""
    size = stacked.shape[1]
    order = {tuple(r): index for index, r in enumerate(wanted.tolist())}
    which = np.array([order[tuple(r)] for r in r_vectors.tolist()])
    elements = stacked.tocoo()
    index, row = np.divmod(elements.row.astype(np.int64), size)
    place = which[index] * size + row
    return scipy.sparse.csr_array((elements.data, (place, elements.col)), (len(wanted) * size, size))


def _hermitian(r_vectors, stacked):
    """(all of ±R and 0 sorted, the Hermitian part of stacked matrices in that order)"""
    size = stacked.shape[1]
    # sorted, so that -R is as far from one end as R from the other, and 0 in the middle
    wanted = np.unique(np.concatenate([r_vectors, -r_vectors, [[0, 0, 0]]]), axis=0)
    stacked = _rows_of(stacked, r_vectors, wanted)
    elements = stacked.tocoo()
    which, row = np.divmod(elements.row.astype(np.int64), size)
    opposite = (len(wanted) - 1 - which) * size + elements.col
    adjoint = scipy.sparse.csr_array((elements.data.conj(), (opposite, row)), stacked.shape)
    return wanted, scipy.sparse.csr_array(0.5 * (stacked + adjoint))


def check_kpts(kpts: ArrayLike) -> NDArray:
    """Array [K, 3] of floats, or ValueError."""
    kpts = np.asarray(kpts, dtype=float)
    if kpts.ndim != 2 or kpts.shape[1] != 3:
        raise ValueError(
            f"kpts: got shape {list(kpts.shape)}, need [K, 3] in reduced coordinates; write [[0, 0, 0]] for one point"
        )
    if not np.isfinite(kpts).all():
        raise ValueError("kpts: got NaN or infinity, need finite reduced coordinates")
    return kpts
