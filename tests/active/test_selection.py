"""Selection and scores: farthest points, sizes of deviations, and what is unphysical."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from small_models import random_model

from ase_mlelec.active.explore import TRUSTED, UNPHYSICAL, between, nearest, noted, read_trajectory, write_frames
from ase_mlelec.active.scores import SCORES, features
from ase_mlelec.active.selection import diverse
from ase_mlelec.testing import random_atoms


def test_farthest_points():
    """Against a plain loop over all pairs."""
    rng = np.random.default_rng(0)
    points, scores = rng.normal(size=(30, 4)), rng.uniform(0.1, 1, 30)
    chosen = [int(np.argmax(scores))]
    for _ in range(6):
        gains = [s * min(np.linalg.norm(p - points[c]) for c in chosen) for p, s in zip(points, scores)]
        chosen.append(int(np.argmax(gains)))
    assert diverse(points, scores, number=7) == chosen


def test_copies_are_taken_once():
    points = np.repeat([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], 5, axis=0)
    assert sorted(k // 5 for k in diverse(points, np.ones(15), number=10)) == [0, 1, 2]
    assert diverse(np.zeros((0, 2)), [], number=3) == []
    with pytest.raises(ValueError, match="2 rows of features and 3 scores"):
        diverse(np.zeros((2, 1)), [1, 2, 3], number=1)


def test_sizes():
    vectors = np.array([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]])
    assert SCORES["forces"].size(vectors, 2) == 5.0
    assert SCORES["energy"].size(0.5, 10) == pytest.approx(0.05)
    assert SCORES["ados"].size(np.array([[1.0, 1.0], [3.0, 4.0]]), 2) == pytest.approx(12.5**0.5)
    assert SCORES["dos"].size(np.array([6.0, 8.0]), 2) == pytest.approx(50**0.5 / 2)
    assert SCORES["gap"].size(0.2, 7) == SCORES["fermi_level"].size(0.2, 3) == pytest.approx(0.2)
    assert SCORES["dipole"].size(np.array([0.0, 3.0, 4.0]), 3) == 5.0


def test_features_do_not_depend_on_the_order_or_the_size_of_the_cell():
    model = random_model(heads=("energy",))
    atoms = random_atoms("Si3O3", cell=[5, 5.5, 6], seed=1)
    mixed = atoms[[3, 0, 5, 1, 4, 2]]
    one, two, three = features(model, "forces", [atoms, mixed, atoms * (2, 1, 1)])
    np.testing.assert_allclose(one, two, atol=1e-12)
    np.testing.assert_allclose(one, three, atol=1e-12)
    assert len(one) == model.descriptor.n_features


def test_nearest():
    """Against all distances with images; every pair has its own limit."""
    atoms = random_atoms("Si2O3", cell=[4.0, 4.5, 5.0], seed=2)
    limits = {("O", "O"): 2.0, ("O", "Si"): 1.5, ("Si", "Si"): 2.2}
    shares = []
    for i, j in itertools.product(range(5), repeat=2):
        for shift in itertools.product((-1, 0, 1), repeat=3):
            distance = np.linalg.norm(atoms.positions[j] + shift @ atoms.cell.array - atoms.positions[i])
            if distance > 1e-9:
                shares.append(distance / limits[tuple(sorted((atoms[i].symbol, atoms[j].symbol)))])
    found = nearest(atoms, limits)
    assert found == pytest.approx(min(shares)) and found < 1
    assert nearest(Atoms("Si"), limits) == np.inf and nearest(atoms, {}) == np.inf


def test_bisection_finds_the_frame_between_the_levels():
    path, asked = [Atoms("H", [[x, 0, 0]]) for x in np.linspace(0, 10, 101)], []

    def judge(atoms, source, *, limited):
        x = atoms.positions[0, 0]
        asked.append(x)
        return noted(atoms, source, x, TRUSTED if x < 6.95 else "candidate" if x < 7.25 else UNPHYSICAL)

    (frame,) = between(path, judge, "run")
    assert frame.info["state"] == "candidate" and len(asked) <= 7
    assert not list(between(path[:60], judge, "run")) and not list(between([], judge, "run"))


def test_frames_keep_every_bit(tmp_path):
    atoms = bulk("Si")
    atoms.rattle(0.1, seed=3)
    write_frames(tmp_path / "a.traj", [noted(atoms, "run 1", 1 / 3, TRUSTED)])
    (read,) = read_trajectory(tmp_path / "a.traj")
    assert (read.positions == atoms.positions).all() and read.info == {
        "source": "run 1",
        "score": 1 / 3,
        "state": TRUSTED,
    }
    assert np.isfinite(noted(Atoms("H", [[np.nan, 0, 0]]), "", np.nan, UNPHYSICAL).positions).all()
