import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_mlelec.analysis.ados import (
    RunningComponents,
    components_of_run,
    coordination,
    minima_of_dos,
    principal_components,
    scores_of_run,
    spectra_of_run,
)
from ase_mlelec.analysis.result_writer import ResultWriter


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


def correlated(n, seed=0):
    """Spectra [n, 12] of decreasing variances around a mean far from zero."""
    rng = np.random.default_rng(seed)
    return 50 + rng.normal(size=(n, 12)) @ np.diag(0.7 ** np.arange(12)) @ rng.normal(size=(12, 12))


@pytest.mark.parametrize("sizes", [(1,) * 60, (2, 57, 1), (0, 30, 0, 30), (60,)])
def test_components_of_pieces_are_those_of_all_at_once(sizes):
    ados = correlated(60)
    expected = principal_components(ados, 12)
    running = RunningComponents()
    for piece in np.split(ados, np.cumsum(sizes)[:-1]):
        running.add(piece)
    found = running.components(12)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(found.explained_variance, expected.explained_variance, atol=1e-14)
    np.testing.assert_allclose(found.components, expected.components, atol=1e-9)
    np.testing.assert_allclose(found.scores(ados), expected.scores(ados), atol=1e-8)
    np.testing.assert_allclose(running.scatter, np.cov(ados.T) * 59, rtol=1e-12)


def test_parts_merge_in_any_order():
    ados = correlated(50)
    parts = [RunningComponents().add(piece) for piece in np.array_split(ados, [3, 20, 21])]
    forward, backward = RunningComponents(), RunningComponents()
    for part in parts:
        forward.merge(part)
    for part in reversed(parts):
        backward.merge(part)
    for found in (forward, backward):
        assert found.n_spectra == 50
        np.testing.assert_allclose(found.mean, ados.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(found.scatter, np.cov(ados.T) * 49, rtol=1e-12)
    assert parts[0].n_spectra == 3  # the parts are as they were
    np.testing.assert_allclose(parts[0].scatter, np.cov(ados[:3].T) * 2, rtol=1e-10)


def test_impossible_pieces():
    running = RunningComponents().add(np.ones((1, 4)))
    with pytest.raises(ValueError, match="5 points after some of 4"):
        running.add(np.ones((2, 5)))
    with pytest.raises(ValueError, match="NaN"):
        running.add(np.full((2, 4), np.nan))
    with pytest.raises(ValueError, match="1 spectra"):
        running.components()


def test_components_of_a_run_without_its_padding(tmp_path):
    """Of a file whose last row is still in the journal, and of arrays in memory; structures of two sizes."""
    sizes, ados = (5, 9, 7), correlated(21)
    rows = np.split(ados, np.cumsum(sizes)[:-1])
    with ResultWriter(tmp_path / "run.h5", {"quantities": ["ados"]}) as writer:
        for n, row in zip(sizes, rows):
            writer.append([{"n_atoms": n, "fingerprint": np.uint64(n), "ados": row}])
            if n == 9:
                writer.update()
        from ase_mlelec.analysis.result_file import ResultFile

        run = ResultFile(tmp_path / "run.h5")
        with run.opened() as (file, behind):
            assert file.attrs["rows"] == 2 and len(list(behind)) == 1
        padded = np.full((3, 9, 12), np.nan)
        for row, own in zip(padded, rows):
            row[: len(own)] = own
        for each in (run, {"n_atoms": np.array(sizes), "ados": padded}):
            for found, right in zip(spectra_of_run(each), rows, strict=True):
                np.testing.assert_array_equal(found, right)
            parts, expected = components_of_run(each), principal_components(ados)
            np.testing.assert_allclose(parts.components, expected.components, atol=1e-9)
            scores = scores_of_run(each, parts)
            assert scores.shape == (3, 9, 2) and np.isnan(scores[0, 5:]).all()
            np.testing.assert_allclose(scores[np.isfinite(scores[..., 0])], expected.scores(ados), atol=1e-8)


def test_minima_of_a_dos():
    energies = np.linspace(-12, 6, 181)
    centers, depths = np.array([-8.03, -4.96, 0.32, 3.0, -6.5]), np.array([0.8, 0.6, 0.9, 0.9, 0.01])
    dos = 1 - (depths * np.exp(-(((energies[:, None] - centers) / 0.6) ** 2))).sum(axis=1)
    found = minima_of_dos(energies, 7 * dos, 0.1)
    np.testing.assert_allclose(found, np.array([0.32, -4.96, -8.03]) - 0.1, atol=0.02)
    np.testing.assert_allclose(minima_of_dos(energies, dos, 0.1, n_minima=1), [0.22], atol=0.02)
    np.testing.assert_allclose(minima_of_dos(energies, dos, -3.0, n_minima=1), [-5.03], atol=0.02)
    with pytest.raises(ValueError, match="no local minimum"):
        minima_of_dos(energies, energies + 13, 0.0)


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
