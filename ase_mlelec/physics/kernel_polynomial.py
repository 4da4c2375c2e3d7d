"""Kernel polynomial method: the density of states of a sparse matrix without its eigenvalues."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
from numpy.typing import ArrayLike


class KernelPolynomialDOS(NamedTuple):
    """Density of states with its statistical error, per matrix.

    Attributes
    ----------
    dos : array [S], states/eV
        The integral is W.
    error : array [S], states/eV
        Standard error of the mean over random vectors.
    """

    dos: np.ndarray
    error: np.ndarray


def kernel_polynomial_dos(
    matrix: scipy.sparse.sparray, energies: ArrayLike, n_moments: int = 512, n_vectors: int = 16, seed: int = 0
) -> KernelPolynomialDOS:
    """Density of states from Chebyshev moments with the Jackson kernel and a stochastic trace.

    The cost is n_moments/2 products of the matrix with n_vectors vectors. The resolution, a Gaussian's standard
    deviation, is π/n_moments of half the band width in the middle of the spectrum and less at its edges.

    Parameters
    ----------
    matrix : sparse Hermitian matrix [W, W], eV
    energies : array [S], eV
    n_moments, n_vectors : int
    seed : int of the random phases

    Returns
    -------
    KernelPolynomialDOS

    Raises
    ------
    ValueError
        For fewer than two vectors, which leave no error estimate, or fewer than two moments.

    References
    ----------
    Weisse et al. 2006, Rev. Mod. Phys. 78, 275, Eqs. (35), (71), (81).
    """
    if n_vectors < 2 or n_moments < 2:
        raise ValueError(f"n_moments, n_vectors: got {n_moments} and {n_vectors}, need at least 2 of each")
    size = matrix.shape[0]
    low, high = _bounds(matrix)
    center, half = 0.5 * (low + high), 0.5 * (high - low)
    scaled = scipy.sparse.csr_array((matrix - center * scipy.sparse.eye_array(size)) / half)
    rng = np.random.default_rng(seed)
    vectors = (
        np.exp(2j * np.pi * rng.random((size, n_vectors)))
        if matrix.dtype.kind == "c"
        else rng.choice([-1.0, 1.0], (size, n_vectors))
    )
    moments = _moments(scaled, vectors, n_moments)
    x = (np.asarray(energies, dtype=float) - center) / half
    inside = abs(x) < 1
    angle = np.arccos(x[inside])
    order = np.arange(n_moments)
    weight = _jackson(n_moments) * np.where(order == 0, 1, 2)
    spectra = np.zeros((n_vectors, len(x)))
    spectra[:, inside] = (moments * weight) @ np.cos(order[:, None] * angle) / (np.pi * half * np.sin(angle))
    return KernelPolynomialDOS(spectra.mean(0), spectra.std(0, ddof=1) / np.sqrt(n_vectors))


def _moments(matrix, vectors, n_moments):
    """``<v|T_m(H)|v>`` of each vector, [n_vectors, n_moments]; T_m T_m' = (``T_{m+m'}`` + ``T_{m-m'})/2`` halves the
    products.
    """

    def product(a, b):
        return np.einsum("ij,ij->j", a.conj(), b).real

    moments = np.empty((n_moments + 2, vectors.shape[1]))
    before, now = vectors, matrix @ vectors
    moments[0], moments[1] = product(vectors, vectors), product(vectors, now)
    for m in range(1, (n_moments + 1) // 2):
        moments[2 * m] = 2 * product(now, now) - moments[0]
        before, now = now, 2 * (matrix @ now) - before
        moments[2 * m + 1] = 2 * product(now, before) - moments[1]
    return moments[:n_moments].T


def _jackson(n):
    m, angle = np.arange(n), np.pi / (n + 1)
    return ((n - m + 1) * np.cos(m * angle) + np.sin(m * angle) / np.tan(angle)) / (n + 1)


def _bounds(matrix):
    """Energies between which all levels lie, with a margin: the ends by Lanczos, kept within Gershgorin's."""
    size = matrix.shape[0]
    diagonal = matrix.diagonal().real
    radius = abs(matrix).sum(1) - abs(diagonal)
    low, high = (diagonal - radius).min(), (diagonal + radius).max()
    if size > 50:
        start = np.random.default_rng(0).normal(size=size).astype(matrix.dtype)
        ends = [
            scipy.sparse.linalg.eigsh(matrix, 1, which=which, v0=start, tol=1e-3, return_eigenvectors=False)[0]
            for which in ("SA", "LA")
        ]
        margin = 0.01 * (ends[1] - ends[0])
        low, high = max(low, ends[0] - margin), min(high, ends[1] + margin)
    return low - 1e-3 * (high - low) - 1e-6, high + 1e-3 * (high - low) + 1e-6
