import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_mlelec.analysis.ados import coordination, principal_components


def test_two_kinds_of_spectra_are_one_component():
    rng = np.random.default_rng(0)
    a, b = rng.random(50), rng.random(50)
    share = rng.random((4, 30))
    ados = share[..., None] * a + (1 - share[..., None]) * b
    parts = principal_components(ados)
    assert parts.explained_variance[0] == pytest.approx(1) and parts.explained_variance[1] < 1e-20
    along = parts.components[0] * np.sign(parts.components[0] @ (a - b))
    np.testing.assert_allclose(along, (a - b) / np.linalg.norm(a - b), atol=1e-10)
    scores = parts.scores(ados)
    assert scores.shape == (4, 30, 2)
    assert abs(np.corrcoef(scores[..., 0].ravel(), share.ravel())[0, 1]) == pytest.approx(1)


def test_components_are_the_eigenvectors_of_the_covariance():
    ados = np.random.default_rng(1).random((40, 7)) @ np.diag([5, 3, 2, 1, 1, 1, 1])
    parts = principal_components(ados, 7)
    variance, vectors = np.linalg.eigh(np.cov(ados.T))
    np.testing.assert_allclose(parts.explained_variance, variance[::-1] / variance.sum(), atol=1e-12)
    np.testing.assert_allclose(np.abs(parts.components @ vectors[:, ::-1]), np.eye(7), atol=1e-8)
    np.testing.assert_allclose(parts.components @ parts.components.T, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(parts.spectra(parts.scores(ados)), ados, atol=1e-12)
    assert (parts.components.max(axis=1) == np.abs(parts.components).max(axis=1)).all()


def test_equal_spectra_have_no_variance():
    parts = principal_components(np.ones((5, 8)))
    np.testing.assert_array_equal(parts.explained_variance, 0)


@pytest.mark.parametrize(
    "ados, count, message",
    [(np.full((3, 4), np.nan), 2, "NaN"), (np.ones((1, 4)), 1, "1 spectra"), (np.ones((3, 4)), 4, "4 components")],
)
def test_impossible_components(ados, count, message):
    with pytest.raises(ValueError, match=message):
        principal_components(ados, count)


@pytest.mark.parametrize(
    "crystal, radius, neighbors",
    [
        (bulk("Si", a=5.43), 2.9, 4),
        (bulk("Si", a=5.43), 4.0, 16),
        (bulk("Cu", a=3.6, cubic=True), 3.0, 12),
        (bulk("Fe", a=2.87), 2.6, 8),
        (Atoms("H"), 3.0, 0),
    ],
)
def test_coordination_of_crystals(crystal, radius, neighbors):
    np.testing.assert_array_equal(coordination(crystal, radius), neighbors)


def test_smooth_coordination():
    pair = Atoms("H2", positions=[[0, 0, 0], [2.9, 0, 0]])
    assert coordination(pair, 2.9, 0.4) == pytest.approx([0.5, 0.5])
    counts = []
    for distance in np.linspace(2.6, 3.2, 61):
        pair.positions[1, 0] = distance
        counts.append(coordination(pair, 2.9, 0.4)[0])
    assert counts[0] == 1 and counts[-1] == 0
    assert (np.diff(counts) <= 0).all() and np.diff(counts).min() > -0.1
    silicon = bulk("Si", a=5.43)
    np.testing.assert_allclose(coordination(silicon, 2.9, 0.3), 4)


@pytest.mark.parametrize("radius, width", [(0, 0), (2, -1), (2, 5)])
def test_impossible_coordination(radius, width):
    with pytest.raises(ValueError, match="need radius > 0"):
        coordination(Atoms("H"), radius, width)
