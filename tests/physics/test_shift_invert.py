"""Levels inside of a large spectrum and its density, against all levels."""

import numpy as np
import pytest
import scipy.sparse
from small_lattices import graphene, supercell

from ase_mlelec.physics import kernel_polynomial, shift_invert
from ase_mlelec.physics.bloch import BlochSum

RNG = np.random.default_rng(7)


def sheet(repeat=10, disorder=0.3, k=(0.1, 0.2, 0)):
    """Graphene supercell with random on-site energies: sparse, complex, no degeneracies."""
    _cell, r_vectors, matrices = supercell(*graphene(), (repeat, repeat, 1))
    home = r_vectors.tolist().index([0, 0, 0])
    matrices[home] += np.diag(disorder * RNG.normal(size=matrices.shape[1]))
    return BlochSum(r_vectors, matrices).sparse(k)


def check(matrix, center, n):
    """Energies, residuals, orthogonality and place among all levels."""
    wanted = np.linalg.eigvalsh(matrix.toarray())
    found = shift_invert.eigenpairs(matrix, center, n)
    np.testing.assert_allclose(found.energies, wanted[found.first : found.first + n], atol=1e-9)
    assert set(np.argsort(abs(wanted - center))[:n]) == set(range(found.first, found.first + n))
    overlap = found.vectors.conj().T @ found.vectors
    np.testing.assert_allclose(overlap, np.eye(n), atol=1e-10)
    np.testing.assert_allclose(matrix @ found.vectors, found.vectors * found.energies, atol=1e-7)


@pytest.mark.parametrize("center, n", [(0.05, 12), (-3.1, 30), (2.0, 1), (-20.0, 5), (20.0, 5)])
@pytest.mark.parametrize("k", [(0.1, 0.2, 0), (0, 0.5, 0)])
def test_sparse(center, n, k):
    matrix = sheet(k=k)
    assert matrix.nnz < 0.03 * matrix.shape[0] ** 2 and matrix.dtype == (float if k[0] == 0 else complex)
    check(matrix, center, n)


@pytest.mark.parametrize("panel", [1, 7, 64])
@pytest.mark.parametrize("k", [(0.1, 0.2, 0), (0, 0.5, 0)])
def test_panels(monkeypatch, panel, k):
    """The factorization's blocks: of one column, of a size that does not divide the matrix, and two separate sheets."""
    monkeypatch.setattr(shift_invert, "_PANEL", panel)
    monkeypatch.setattr(shift_invert, "_dense_factorized", None)
    check(scipy.sparse.block_diag([sheet(k=k), sheet(4, k=k)], format="csr"), 0.05, 12)


@pytest.mark.parametrize("k", [(0.1, 0.2, 0), (0, 0, 0)])
def test_exchanges_of_rows_where_they_are_needed(monkeypatch, k):
    """Diagonal elements that are equal to the center, although no level is."""
    monkeypatch.setattr(shift_invert, "_PANEL", 1)
    matrix, used, pivoted = sheet(4, disorder=0, k=k), [], shift_invert._dense_factorized
    monkeypatch.setattr(shift_invert, "_dense_factorized", lambda shifted: used.append(True) or pivoted(shifted))
    assert abs(np.linalg.eigvalsh(matrix.toarray())).min() > 0.01
    found = shift_invert.eigenpairs(matrix, 0.0, 8)
    assert used
    wanted = np.linalg.eigvalsh(matrix.toarray())
    np.testing.assert_allclose(np.sort(abs(found.energies)), np.sort(abs(wanted))[:8], atol=1e-9)
    np.testing.assert_allclose(wanted[found.first : found.first + 8], found.energies, atol=1e-9)


@pytest.mark.parametrize("off, needed", [(3e-8, False), (1e-6, True), (1e-5, True)])
def test_rough_factors(monkeypatch, off, needed):
    """Factors of a matrix that is a little off, as rounding leaves them where pivots are small; no rows exchanged.

    Levels within the space that they find are exact, and where this is not enough solutions are corrected.
    """
    exact, errors = shift_invert._envelope_factorized, []

    def rough(shifted):
        other = shifted + off * scipy.sparse.diags_array(np.cos(np.arange(shifted.shape[0])))
        solve, n_below = exact(scipy.sparse.coo_array(other))
        trial = RNG.normal(size=(shifted.shape[0], 2)).astype(complex)
        errors.append(np.linalg.norm(shifted @ solve(trial) - trial) / np.linalg.norm(trial))
        return solve, n_below

    monkeypatch.setattr(shift_invert, "_envelope_factorized", rough)
    monkeypatch.setattr(shift_invert, "_dense_factorized", None)
    corrected = []
    monkeypatch.setattr(
        shift_invert, "_corrected", lambda *given, by=shift_invert._corrected: corrected.append(True) or by(*given)
    )
    check(sheet(), 0.05, 12)
    assert off / 10 < errors[0] < shift_invert._ROUGH
    assert bool(corrected) == needed


@pytest.mark.parametrize("kind", [float, complex])
def test_dense(kind):
    matrix = RNG.normal(size=(150, 150)) + (1j * RNG.normal(size=(150, 150)) if kind is complex else 0)
    check(scipy.sparse.csr_array(matrix + matrix.conj().T), 0.3, 20)


@pytest.mark.parametrize("density", ["sparse", "dense"])
def test_degenerate_levels(density):
    """A perfect sheet at Γ: levels of multiplicity 6 and 27 are found as often as they occur."""
    matrix = sheet(disorder=0, k=(0, 0, 0))
    wanted = np.linalg.eigvalsh(matrix.toarray())
    assert max(np.unique(wanted.round(9), return_counts=True)[1]) == 27
    if density == "dense":
        turn = np.linalg.qr(RNG.normal(size=matrix.shape))[0]
        matrix = scipy.sparse.csr_array(turn @ matrix.toarray() @ turn.T)
    found = shift_invert.eigenpairs(matrix, -1.0, 40)
    np.testing.assert_allclose(found.energies, np.sort(wanted[np.argsort(abs(wanted + 1))[:40]]), atol=1e-8)


def test_all_levels():
    matrix = sheet(3)
    np.testing.assert_allclose(
        shift_invert.eigenpairs(matrix, 0.01, 18).energies, np.linalg.eigvalsh(matrix.toarray()), atol=1e-9
    )
    for n in (0, 19):
        with pytest.raises(ValueError, match=f"n: got {n}, need 1 to 18"):
            shift_invert.eigenpairs(matrix, 0.01, n)


# Kernel polynomials


def exact_moments_dos(matrix, energies, n_moments):
    """The same expansion with the exact trace, from all levels: Gauss's kernel as the Jackson kernel makes it."""
    low, high = kernel_polynomial._bounds(matrix)
    levels = (np.linalg.eigvalsh(matrix.toarray()) - 0.5 * (low + high)) / (0.5 * (high - low))
    x = (energies - 0.5 * (low + high)) / (0.5 * (high - low))
    m = np.arange(n_moments)[:, None]
    q = np.pi / (n_moments + 1)
    kernel = ((n_moments - m + 1) * np.cos(q * m) + np.sin(q * m) / np.tan(q)) / (n_moments + 1)
    factor = np.where(m == 0, 1, 2) * kernel * np.cos(m * np.arccos(levels)).sum(1, keepdims=True)
    return (factor * np.cos(m * np.arccos(x))).sum(0) / (np.pi * np.sqrt(1 - x**2) * 0.5 * (high - low))


@pytest.mark.parametrize("k", [(0.1, 0.2, 0), (0, 0, 0)])
def test_kernel_polynomials(k):
    """Within the statistical error that they state, which falls as the square root of the number of vectors."""
    matrix = sheet(12, k=k)
    energies = np.linspace(-7, 7, 101)
    wanted = exact_moments_dos(matrix, energies, 100)
    errors = []
    for n_vectors in (16, 256):
        found = kernel_polynomial.kernel_polynomial_dos(matrix, energies, 100, n_vectors)
        ratio = (found.dos - wanted) / found.error
        assert np.sqrt(np.mean(ratio**2)) < 1.6 and abs(ratio).max() < 6
        errors.append(found.error.mean())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("n_moments", [2, 3, 64, 65])
def test_every_state_counts_once(n_moments):
    matrix = sheet(6)
    energies = np.linspace(-15, 15, 30001)
    found = kernel_polynomial.kernel_polynomial_dos(matrix, energies, n_moments, 3)
    assert np.trapezoid(found.dos, energies) == pytest.approx(72, rel=0.03 if n_moments < 4 else 1e-3)
    assert (found.dos >= -1e-9).all()  # the Jackson kernel is positive


def test_resolution():
    """One level: a peak of standard deviation π/M of half the width of the spectrum."""
    matrix = scipy.sparse.diags_array([-1.0] + [0.0] * 8 + [1.0]).tocsr()
    energies = np.linspace(-0.2, 0.2, 2001)
    found = kernel_polynomial.kernel_polynomial_dos(matrix, energies, 200, 4).dos
    mean_square = np.trapezoid(found * energies**2, energies) / np.trapezoid(found, energies)
    assert np.sqrt(mean_square) == pytest.approx(np.pi / 200, rel=0.03)


def test_seed_and_bad_numbers():
    matrix = sheet(4)
    first, again, other = (
        kernel_polynomial.kernel_polynomial_dos(matrix, [0.0, 1.0], 32, 4, seed).dos for seed in (0, 0, 1)
    )
    assert (first == again).all() and (first != other).any()
    for arguments in ((1, 4), (32, 1)):
        with pytest.raises(ValueError, match=f"got {arguments[0]} and {arguments[1]}, need at least 2 of each"):
            kernel_polynomial.kernel_polynomial_dos(matrix, [0.0], *arguments)
