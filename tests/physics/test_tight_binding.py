"""H(k), eigenstates and levels: identities of Fourier sums, models with closed forms, finite differences."""

import numpy as np
import pytest
import scipy.sparse
from small_lattices import HEXAGONAL, A, build, chain, graphene, random_model, ssh, supercell

from ase_mlelec.physics import bands
from ase_mlelec.physics.bands import eigenvalues
from ase_mlelec.physics.bloch import BlochSum, hermitian_part
from ase_mlelec.physics.kmesh import monkhorst_pack, time_reversal_pairs
from ase_mlelec.physics.levels import density_of_states, fermi_level
from ase_mlelec.units import KB

RNG = np.random.default_rng(5)
KPTS = np.concatenate([RNG.uniform(-2, 2, (6, 3)), [[0, 0, 0], [0.5, 0, -0.5]]])


def as_sparse(matrices):
    return [scipy.sparse.csr_array(matrix) for matrix in matrices]


def bloch(model):
    return BlochSum(*model[1:])


# H(k)


@pytest.mark.parametrize("real", [True, False])
def test_is_the_fourier_sum(real):
    """Dense input, sparse input and a thin pattern against the sum as it is written, diagonals and triangles alike."""
    _cell, r_vectors, matrices = random_model(RNG, real=real)
    matrices = matrices * (RNG.random(matrices.shape) < 0.3)  # the pattern differs between the R
    r_vectors, matrices = hermitian_part(r_vectors, matrices)
    written = sum(np.exp(2j * np.pi * KPTS @ r)[:, None, None] * m.toarray() for r, m in zip(r_vectors, matrices))
    for given in matrices, np.array([matrix.toarray() for matrix in matrices]):
        found = BlochSum(r_vectors, given)
        assert found.is_real == real
        np.testing.assert_allclose(found.dense(KPTS).numpy(), written, atol=1e-13)
        for k, wanted in zip(KPTS, written):
            np.testing.assert_allclose(found.sparse(k).toarray(), wanted, atol=1e-13)
    assert found.sparse([0.5, 1.0, 0]).dtype == (float if real else complex)


@pytest.mark.parametrize("fill", [1.0, 0.05])
def test_hermitian_and_periodic(fill):
    _cell, r_vectors, matrices = random_model(RNG, size=9, n_vectors=20)
    r_vectors, matrices = hermitian_part(r_vectors, matrices * (RNG.random(matrices.shape) < fill))
    found = BlochSum(r_vectors, matrices)
    matrix = found.dense(KPTS).numpy()
    np.testing.assert_array_equal(matrix, matrix.conj().swapaxes(1, 2))
    np.testing.assert_allclose(found.dense(KPTS + [1, -2, 5]).numpy(), matrix, atol=1e-12)


def test_real_matrices_give_pairs():
    """H(-k) = H(k)* where H(R) is real: the energies on half a mesh are those on the whole."""
    found = bloch(random_model(RNG, real=True))
    np.testing.assert_allclose(found.dense(-KPTS).numpy(), found.dense(KPTS).numpy().conj(), atol=1e-13)
    whole = eigenvalues(found, monkhorst_pack((4, 3, 2)))
    half, weights = time_reversal_pairs((4, 3, 2))
    assert weights @ (eigenvalues(found, half) ** 3).sum(1) == pytest.approx((whole**3).sum(1).mean(), rel=1e-12)


def test_matrices_are_given_back():
    _cell, r_vectors, matrices = random_model(RNG)
    for given in matrices, as_sparse(matrices):
        found = BlochSum(r_vectors, given)
        order = [found.r_vectors.tolist().index(r) for r in r_vectors.tolist()]
        np.testing.assert_allclose(found.matrices[order], matrices, atol=1e-15)
    thin = BlochSum(r_vectors, matrices * (np.indices(matrices.shape)[1:].sum(0) < 2))
    assert isinstance(thin.matrices, list) and len(thin.matrices) == len(thin.r_vectors)
    np.testing.assert_array_equal([matrix.toarray() for matrix in thin.matrices], thin.toarray())


@pytest.mark.parametrize("repeat", [(2, 1, 1), (1, 3, 2)])
def test_folding(repeat):
    """Bands of a supercell at K are those of the cell at the points that fold onto it."""
    model = random_model(RNG, size=3)
    big = BlochSum(*supercell(*model, repeat)[1:])
    points = (KPTS[:3, None] + np.indices(repeat).reshape(3, -1).T) / repeat
    folded = eigenvalues(bloch(model), points.reshape(-1, 3)).reshape(3, -1)
    np.testing.assert_allclose(eigenvalues(big, KPTS[:3]), np.sort(folded, axis=1), atol=1e-12)


# Closed forms


def test_chain_and_ssh():
    k = np.linspace(-0.5, 0.5, 41)
    kpts = np.stack([k, 0 * k + 0.3, 0 * k - 0.1], axis=1)
    np.testing.assert_allclose(eigenvalues(bloch(chain(-1.3)), kpts)[:, 0], -2.6 * np.cos(2 * np.pi * k), atol=1e-14)
    found = eigenvalues(bloch(ssh(-1, -0.6)), kpts)
    np.testing.assert_allclose(found[:, 1], abs(-1 - 0.6 * np.exp(2j * np.pi * k)), atol=1e-14)
    np.testing.assert_allclose(found[:, 0], -found[:, 1], atol=1e-14)


def test_dirac_cone():
    """Slopes of ±3|t|a/2 at K, a the bond, in every direction: a degenerate level, which splits along each axis."""
    t, bond = -2.7, A / np.sqrt(3)
    energies, slopes = bands.velocities(bloch(graphene(t)), [[1 / 3, 1 / 3, 0]], HEXAGONAL)
    np.testing.assert_allclose(energies, 0, atol=1e-14)
    np.testing.assert_allclose(slopes[0], 1.5 * abs(t) * bond * np.array([[-1, -1, 0], [1, 1, 0]]), atol=1e-12)


def test_gap_of_haldane():
    """At the two corners |M ± 3√3 t2 sin φ| on both sides of the middle."""
    found = eigenvalues(bloch(graphene(-1, 0.2, 0.1)), [[1 / 3, 1 / 3, 0], [-1 / 3, -1 / 3, 0]])
    gaps = np.sort(found[:, 1] - found[:, 0])
    np.testing.assert_allclose(gaps, 2 * (0.3 * np.sqrt(3) + np.array([-0.2, 0.2])), atol=1e-12)


# Derivatives


def test_velocities_are_differences():
    cell, *model = random_model(RNG)
    found = BlochSum(*model)
    energies, slopes = bands.velocities(found, KPTS, cell)
    np.testing.assert_allclose(energies, eigenvalues(found, KPTS), atol=1e-12)
    step = 1e-5
    for axis in range(3):
        move = step * cell[:, axis] / (2 * np.pi)  # k = reduced @ 2π inverse(cell).T
        numeric = (eigenvalues(found, KPTS + move) - eigenvalues(found, KPTS - move)) / (2 * step)
        np.testing.assert_allclose(slopes[..., axis], numeric, atol=1e-5)


def test_gradient_is_hermitian():
    cell, *model = random_model(RNG)
    gradient = BlochSum(*model).gradient(KPTS, cell).numpy()
    np.testing.assert_allclose(gradient, gradient.conj().swapaxes(2, 3), atol=1e-13)


def test_velocities_of_degenerate_levels():
    """Two equal copies, mixed by a unitary transformation: each slope of one copy twice."""
    cell, r_vectors, matrices = random_model(RNG, size=3)
    turn = np.linalg.qr(RNG.normal(size=(6, 6)) + 1j * RNG.normal(size=(6, 6)))[0]
    double = turn @ np.kron(np.eye(2), matrices) @ turn.conj().T
    wanted = bands.velocities(BlochSum(r_vectors, matrices), KPTS, cell)[1]
    found = bands.velocities(BlochSum(r_vectors, double), KPTS, cell)[1]
    np.testing.assert_allclose(found, np.repeat(wanted, 2, axis=1), atol=1e-9)


# Projections


def test_projections():
    """Weights of a partition add up to 1, and of one function they integrate to one state."""
    found = bloch(random_model(RNG))
    kpts = monkhorst_pack((4, 4, 4))
    energies, weights = bands.projections(found, kpts, [[0, 3], [1], [2, 4]])
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-13)
    np.testing.assert_allclose(weights.sum(1), [[2, 1, 2]] * 64, atol=1e-13)
    # the first moment is the on-site energy
    home = found.r_vectors.tolist().index([0, 0, 0])
    assert (energies * weights[..., 1]).sum(1).mean() == pytest.approx(found.toarray()[home, 1, 1].real, abs=1e-12)
    with pytest.raises(ValueError, match="groups: got index 1 to 5, need 0 to 4"):
        bands.projections(found, kpts, [[1, 5]])


# Levels


@pytest.mark.parametrize("temperature", [0, 30, 1000, 20000])
def test_fermi_level(temperature):
    """Counting electrons at the level gives them back; n and g W - n are mirror images."""
    levels, weights = RNG.normal(size=(40, 6)), RNG.random(40)
    weights /= weights.sum()
    for electrons in (0.7, 5.2, 11.9):
        level = fermi_level(levels, weights, electrons, temperature)
        if temperature:
            x = np.clip((levels - level) / (KB * temperature), -700, 700)
            number = 2 * np.sum(weights[:, None] / (1 + np.exp(x)))
            assert number == pytest.approx(electrons, abs=1e-9)
        else:
            below, above = (2 * np.sum(weights[:, None] * (levels < level + shift)) for shift in (-1e-9, 1e-9))
            assert below <= electrons <= above
        assert fermi_level(-levels, weights, 12 - electrons, temperature) == pytest.approx(-level, abs=1e-12)
        assert fermi_level(levels, weights, electrons / 2, temperature, degeneracy=1) == pytest.approx(level, abs=1e-12)


def test_fermi_level_in_a_gap():
    """In the middle at T = 0; with g_v and g_c states at the edges it moves by kT ln(g_v/g_c)/2."""
    levels, weights = np.array([[0.0, 2.0, 2.0]]), np.ones(1)
    assert fermi_level(levels, weights, 2, 0) == pytest.approx(1, abs=1e-12)
    for temperature in (20, 300):
        wanted = 1 - 0.5 * KB * temperature * np.log(2)
        assert fermi_level(levels, weights, 2, temperature) == pytest.approx(wanted, abs=2e-3 * KB * temperature)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((7, 300), "n_electrons: got 7, need 0 to 6, which the bands hold"),
        ((-1, 300), "n_electrons: got -1"),
        ((np.nan, 300), "n_electrons: got nan"),
        ((2, -1), "temperature: got -1 K, need a number >= 0"),
        ((2, np.nan), "temperature: got nan K"),
    ],
)
def test_bad_electrons(arguments, message):
    with pytest.raises(ValueError, match=message):
        fermi_level(np.zeros((1, 3)), np.ones(1), *arguments)


def test_density_of_states():
    """The integral is g W; the chain's inverse square root away from its edges, D = g/(π sqrt(4t² - E²))."""
    kpts, weights = time_reversal_pairs((2000, 1, 1))
    levels = eigenvalues(bloch(chain(-1)), kpts)
    energies = np.linspace(-2.5, 2.5, 501)
    dos = density_of_states(energies, levels, weights, 0.02)
    assert np.trapezoid(dos, energies) == pytest.approx(2, abs=1e-8)
    middle = abs(energies) < 1.5
    np.testing.assert_allclose(dos[middle], 2 / (np.pi * np.sqrt(4 - energies[middle] ** 2)), rtol=1e-3)
    with pytest.raises(ValueError, match="width: got 0 eV, need more than 0"):
        density_of_states(energies, levels, weights, 0)


# Bad input


def test_not_hermitian():
    _cell, r_vectors, matrices = random_model(RNG)
    wrong = matrices.copy()
    wrong[1, 0, 2] += 0.043
    with pytest.raises(ValueError, match=r"differ by 0.043 eV, need a Hermitian Hamiltonian; average them"):
        BlochSum(r_vectors, wrong)
    averaged = BlochSum(*hermitian_part(r_vectors, wrong))
    difference = eigenvalues(averaged, KPTS) - eigenvalues(BlochSum(r_vectors, matrices), KPTS)
    assert 1e-4 < abs(difference).max() < 0.043
    with pytest.raises(ValueError, match="differ by"):  # a lattice vector without its opposite
        BlochSum([[0, 0, 0], [1, 0, 0]], np.ones((2, 1, 1)))


@pytest.mark.parametrize(
    "r_vectors, matrices, message",
    [
        ([0, 0, 0], np.zeros((1, 2, 2)), r"r_vectors: got shape \[3\], need integers \[R, 3\]"),
        ([[0, 0, 0.5]], np.zeros((1, 2, 2)), "r_vectors: got .* need integers"),
        ([[0, 0, 0], [0, 0, 0]], np.zeros((2, 2, 2)), "got a lattice vector twice"),
        ([[0, 0, 0]], np.zeros((2, 2, 2)), r"matrices: got 2 of shapes .* need 1 that are \[W, W\]"),
        ([[0, 0, 0]], np.zeros((1, 2, 3)), r"matrices: got 1 of shapes .*2, 3.* need 1"),
        ([[0, 0, 0]], np.full((1, 2, 2), np.nan), "matrices: got NaN or infinity"),
    ],
)
def test_bad_matrices(r_vectors, matrices, message):
    with pytest.raises(ValueError, match=message):
        BlochSum(r_vectors, matrices)


@pytest.mark.parametrize(
    "kpts, message",
    [
        ([0, 0, 0], r"kpts: got shape \[3\], need \[K, 3\] in reduced coordinates"),
        ([[0, 0]], r"got shape \[1, 2\]"),
        ([[0, np.nan, 0]], "got NaN or infinity"),
    ],
)
def test_bad_kpts(kpts, message):
    for function in (eigenvalues, bands.eigenstates):
        with pytest.raises(ValueError, match=message):
            function(bloch(chain()), kpts)


def test_eigenstates():
    found = bloch(random_model(RNG))
    energies, states = bands.eigenstates(found, KPTS)
    np.testing.assert_allclose(found.dense(KPTS).numpy() @ states, states * energies[:, None], atol=1e-12)
    assert eigenvalues(found, np.zeros((0, 3))).shape == (0, 5)


@pytest.mark.parametrize("real", [True, False])
def test_eigenvalues_in_batches(real, monkeypatch):
    """Batches share the memory of their matrices; of eight points, two of them invariant, the last batches are shorter."""
    found = bloch(random_model(RNG, real=real))
    monkeypatch.setattr(bands, "_CHUNK", 5 * 5 * 5 * bands._PARTS)
    wanted = [np.linalg.eigvalsh(matrix) for matrix in found.dense(KPTS).numpy()]
    np.testing.assert_allclose(eigenvalues(found, KPTS), wanted, atol=1e-12)


def test_atoms_without_neighbors():
    """On-site terms alone: flat bands, no lattice vector needed."""
    model = build(2, [((0, 0, 0), 0, 0, 0.5), ((0, 0, 0), 1, 1, -0.5)], np.eye(3))
    np.testing.assert_array_equal(eigenvalues(bloch(model), KPTS), [[-1, 1]] * len(KPTS))
