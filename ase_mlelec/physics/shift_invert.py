"""Shift-invert Lanczos: the eigenvalues of a sparse Hermitian matrix next to an energy."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg

from ase_mlelec.threads import one_blas_thread

_PANEL = 192  # columns of a block of the factorization
_SINGULAR = 1e-10  # eV; of the levels of a diagonal block
_ACCURACY = 1e-6  # relative accuracy of solutions that is enough for levels to be tried with
_ROUGH = 1e-4  # accuracy that one correction can improve; for worse solutions, rows are exchanged
_BLOCK = 6  # vectors per step; reading the factors takes longer than multiplying them by a few vectors
_LARGEST = 1e-7  # eV; the largest residual of levels that are returned
_RESIDUAL = 1e-8  # eV; |Hx - Ex|, of which the error of an energy is the square over the gap
_GLANCE = 1e-3  # eV; the same where a level that was missed only has to show itself
_PATIENCE = 4  # blocks from one look at the convergence to the next


class Interior(NamedTuple):
    """Eigenpairs nearest to an energy.

    Attributes
    ----------
    energies : array [n], eV, ascending
    vectors : array [W, n]
    first
        Index of the first of them among all W levels, counted from zero.
    """

    energies: np.ndarray
    vectors: np.ndarray
    first: int


def eigenpairs(matrix: scipy.sparse.sparray, center: float, n: int) -> Interior:
    """The n eigenpairs of a Hermitian matrix nearest to an energy.

    On one core: threads would wait for each other in thousands of small products.

    Factorizes H - center = L D L† once and finds the largest eigenvalues of its inverse by block Lanczos iteration.
    The signs of D tell how many levels lie below the center (Sylvester), hence which levels the found ones are.

    Parameters
    ----------
    matrix
        Sparse matrix [W, W], eV.
    center : float, eV
        Best in a gap.
    n : int
        At most W.

    Returns
    -------
    Interior

    Raises
    ------
    ValueError
        For another n.
    RuntimeError
        Where the iteration does not converge.

    References
    ----------
    Ericsson and Ruhe 1980, Math. Comp. 35, 1251 (shift and invert).
    """
    size = matrix.shape[0]
    if not 1 <= n <= size:
        raise ValueError(f"n: got {n}, need 1 to {size}; ask for fewer bands than there are functions")
    with one_blas_thread():
        for solve, n_below in _factorizations(matrix, center):
            energies, vectors, residual = _within(matrix, _largest(solve, size, n, matrix.dtype)[1])
            if residual < _LARGEST:
                return Interior(energies, vectors, n_below - int((energies < center).sum()))
    raise RuntimeError(
        f"center: got residuals of {residual:.1g} eV at {center:g} eV, need less than {_LARGEST:g}; move "
        "the center away from the levels"
    )


def _within(matrix, vectors):
    """Energies, eigenvectors and largest residual of H within the space of orthonormal vectors (Rayleigh and Ritz).

    The energies are exact to the second order in what an approximate inverse left wrong in the vectors.
    """
    image = matrix @ vectors
    energies, mixed = np.linalg.eigh(_overlap(vectors, image))
    vectors = vectors @ mixed
    return energies, vectors, np.linalg.norm(image @ mixed - vectors * energies, axis=0).max()


def _factorizations(matrix, center):
    """Pairs: function that solves (H - center) x = b for b [W, m], number of eigenvalues below the center.

    The fastest comes first, each that follows is more exact.
    """
    shifted = scipy.sparse.coo_array(matrix - center * scipy.sparse.eye_array(matrix.shape[0]))
    found = _envelope_factorized(shifted)
    if found:
        (solve, n_below), rows = found, shifted.tocsr()
        trial = np.random.default_rng(0).normal(size=(shifted.shape[0], 1)).astype(matrix.dtype)
        error = np.linalg.norm(rows @ solve(trial) - trial) / np.linalg.norm(trial)
        if error < _ACCURACY:
            yield found
        if error < _ROUGH:
            yield lambda block: _corrected(solve, rows, block), n_below
    yield _dense_factorized(shifted)


def _corrected(solve, matrix, block):
    """Solution of matrix @ x = block after one step of iterative refinement."""
    rough = solve(block)
    return rough + solve(block - matrix @ rough)


def _envelope_factorized(shifted):
    """Block L D L†; None where a diagonal block has no inverse.

    Rows are in the order of reverse Cuthill and McKee, for which what lies ahead of the first element of a row, and
    stays zero, is most of a large cell. Panels of L are dense, of 192 columns: nearly all work is matrix products.
    No row is exchanged with one of another block, so a center can be a bad one; the caller checks what is solved.
    """
    size = shifted.shape[0]
    order = scipy.sparse.csgraph.reverse_cuthill_mckee(shifted.tocsr(), symmetric_mode=True)
    place = np.argsort(order)
    row, column = place[shifted.row], place[shifted.col]
    lower = row >= column
    columns = scipy.sparse.csc_array((shifted.data[lower], (row[lower], column[lower])), shifted.shape)
    starts = np.arange(0, size, _PANEL)
    stops = np.minimum(starts + _PANEL, size)
    ends = np.maximum.accumulate(
        [
            columns.indices[columns.indptr[start] : columns.indptr[stop]].max(initial=start) + 1
            for start, stop in zip(starts, stops)
        ]
    )
    ends = np.maximum(ends, stops)
    panels = [columns[:, start:stop][start:end].toarray("C") for start, stop, end in zip(starts, stops, ends)]
    subtract = _subtraction(panels[0])
    inverses, n_below = [], 0
    for k, (start, stop, end) in enumerate(zip(starts, stops, ends)):
        values, vectors = np.linalg.eigh(panels[k][: stop - start])
        if abs(values).min() < _SINGULAR:
            return None
        n_below += int((values < 0).sum())
        inverses.append((vectors / values) @ vectors.conj().T)
        below = panels[k][stop - start :]
        panels[k] = below @ inverses[k]
        changed = range(k + 1, int(np.searchsorted(starts, end)))
        adjoint = np.zeros((stops[changed.stop - 1] - stop, stop - start), below.dtype)
        adjoint[: end - stop] = below.conj()
        for later in changed:
            first, last = starts[later] - stop, stops[later] - stop
            subtract(panels[later][: end - starts[later]], panels[k][first:], adjoint[first:last])

    def solve(block):
        block = block[order]
        for start, stop, end, panel in zip(starts, stops, ends, panels):
            block[stop:end] -= panel @ block[start:stop]
        for start, stop, end, panel, inverse in reversed(list(zip(starts, stops, ends, panels, inverses))):
            block[start:stop] = inverse @ block[start:stop] - _overlap(panel, block[stop:end])
        return block[place]

    return solve, n_below


def _subtraction(panel):
    """Function that subtracts left @ right.T from a matrix in place, in one pass (BLAS); all with rows in memory."""
    multiply = scipy.linalg.get_blas_funcs("gemm", (panel,))

    def subtract(matrix, left, right):
        # BLAS counts along columns, and so sees each of them transposed
        multiply(-1.0, right.T, left.T, beta=1.0, c=matrix.T, trans_a=1, overwrite_c=1)

    return subtract


def _dense_factorized(shifted):
    """The same with rows exchanged wherever that is more exact (LAPACK)."""
    lower = scipy.sparse.tril(shifted, format="coo")
    dense = np.zeros(shifted.shape, shifted.dtype, order="F")
    dense[lower.row, lower.col] = lower.data
    kind = "he" if dense.dtype.kind == "c" else "sy"
    factorize, back = scipy.linalg.get_lapack_funcs((kind + "trf", kind + "trs"), (dense,))
    factors, pivots, _ = factorize(dense, lower=1, lwork=64 * len(dense), overwrite_a=1)
    # LAPACK's convention: two equal negative pivots are a 2x2 block of D, which has one negative eigenvalue
    single = pivots > 0
    n_below = int((factors.diagonal().real[single] < 0).sum()) + int((~single).sum()) // 2

    def solve(block):
        return back(factors, pivots, np.asfortranarray(block), lower=1)[0]

    return solve, n_below


def _largest(solve, size, n, dtype):
    """The n eigenvalues of largest modulus of a Hermitian operator, and their vectors.

    A Krylov space holds a degenerate level at most as often as its block is wide. So what is left when the found
    vectors are projected out is searched again, until nothing in it is larger than what was found.
    """
    values, vectors = _block_lanczos(solve, size, n, np.zeros((size, 0), dtype=dtype), _RESIDUAL)
    while vectors.shape[1] < size:
        largest = _block_lanczos(solve, size, 1, vectors, _GLANCE)[0]
        if abs(largest).max() <= abs(values[:n]).min() * (1 + 1e-9):
            break
        others = _block_lanczos(solve, size, min(_BLOCK, size - vectors.shape[1]), vectors, _RESIDUAL)
        values, vectors = np.concatenate([values, others[0]]), np.concatenate([vectors, others[1]], axis=1)
        order = np.argsort(-abs(values), kind="stable")
        values, vectors = values[order], vectors[:, order]
    return values[:n], vectors[:, :n]


def _block_lanczos(solve, size, n, known, residual):
    """n eigenvalues of largest modulus within the complement of known vectors [W, d], with full orthogonalization."""
    rng = np.random.default_rng(known.shape[1])
    dtype, room = known.dtype, size - known.shape[1]
    width = min(_BLOCK, room)
    most = min(room, 20 * n + 80 * width)
    start = rng.normal(size=(size, width)) + (1j * rng.normal(size=(size, width)) if dtype.kind == "c" else 0)
    block = _orthogonal(start.astype(dtype), known)[0]
    basis = np.zeros((size, 0), dtype=dtype)
    projected = np.zeros((0, 0), dtype=dtype)
    while True:
        basis = np.concatenate([basis, block], axis=1)
        image = solve(block)
        overlap = _overlap(basis, image)
        grown = np.zeros((basis.shape[1],) * 2, dtype=dtype)
        grown[: len(projected), : len(projected)] = projected
        grown[:, -block.shape[1] :] = overlap
        grown[-block.shape[1] :, :] = overlap.conj().T
        projected = grown
        block, coupling = _orthogonal(image, np.concatenate([known, basis], axis=1))
        if basis.shape[1] >= most or (basis.shape[1] >= n and basis.shape[1] // width % _PATIENCE == 0):
            inverse, coefficients = np.linalg.eigh(projected)
            chosen = np.argsort(-abs(inverse))[:n]
            inverse, coefficients = inverse[chosen], coefficients[:, chosen]
            # an error r of the inverse is one of r/θ² of the energy
            error = np.linalg.norm(coupling @ coefficients[-coupling.shape[1] :], axis=0) / inverse**2
            if error.max() < residual or basis.shape[1] == room:
                return inverse, basis @ coefficients
            if basis.shape[1] >= most:
                raise RuntimeError(
                    f"n: got {n} levels that do not converge in {basis.shape[1]} vectors; ask for more "
                    "levels or move the center"
                )
        block = block[:, : room - basis.shape[1]]


def _orthogonal(block, basis):
    """Orthonormal vectors orthogonal to a basis, and coefficients of the block in these vectors."""
    size = np.linalg.norm(block, axis=0).max()
    for _ in range(2):  # once is not enough against rounding
        block = block - basis @ _overlap(basis, block)
    block, coupling = np.linalg.qr(block)
    if abs(coupling.diagonal()).min() > 1e-4 * size:
        return block, coupling
    # columns that were almost zero are now anything
    return np.linalg.qr(block - basis @ _overlap(basis, block))[0], coupling


def _overlap(basis, block):
    """basis† block, without a conjugated copy of the larger one."""
    return (block.conj().T @ basis).conj().T
