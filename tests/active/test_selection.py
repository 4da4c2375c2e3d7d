"""Selection and scores: what labels teach, sizes of deviations, and what is unphysical."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small_data import ENERGIES, make_frames
from small_models import random_model

from ase_mlelec.active.explore import TRUSTED, UNPHYSICAL, between, nearest, noted, read_trajectory, write_frames
from ase_mlelec.active.rows import MOVES, informative_rows, principal
from ase_mlelec.active.scores import SCORES
from ase_mlelec.active.selection import most_informative
from ase_mlelec.edges import Edges
from ase_mlelec.heads import SpectrumHead
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms
from ase_mlelec.train.error_bars import add_error_bars
from ase_mlelec.uncertainty import contributions


def normal_rows(seed=0, n=14, r=3, size=7):
    """Rows of structures whose variances differ by orders of magnitude, and of a training set."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, r, size)) * np.exp(1.5 * rng.normal(size=(n, 1, 1))) * np.linspace(2, 0.1, size)
    return rows, rng.normal(size=(9, size))


def whitened(rows, train, ridge):
    """Rows in coordinates in which the covariance of the weights is the unit matrix."""
    return rows @ np.linalg.cholesky(np.linalg.inv(train.T @ train + ridge * np.eye(rows.shape[2])))


def test_what_is_taught_against_fits_with_each_label():
    """The covariance is made anew from all rows for each structure that could be next."""
    rows, train = normal_rows()
    variances = np.array([np.trace(each @ np.linalg.inv(train.T @ train + 0.3 * np.eye(7)) @ each.T) for each in rows])
    weights = np.minimum(1, 10 * np.median(variances) / variances)
    assert weights.min() < 1

    def uncertain(chosen):
        known = np.concatenate([train, *(rows[k] for k in chosen)])
        covariance = np.linalg.inv(known.T @ known + 0.3 * np.eye(7))
        return sum(w * np.trace(each @ covariance @ each.T) for w, each in zip(weights, rows))

    chosen, among = [], [0, 2, 3, 4, 5, 7, 9, 10, 12, 13]
    for _ in range(6):
        chosen.append(min((k for k in among if k not in chosen), key=lambda k: uncertain([*chosen, k])))
    assert most_informative(whitened(rows, train, 0.3), number=6, among=among) == chosen
    assert chosen != sorted(among, key=lambda k: -variances[k])[:6]  # not simply the least certain


def test_choice_depends_on_no_order_and_no_coordinates():
    rows, train = normal_rows(1)
    rows = whitened(rows, train, 0.1)
    chosen, rng = most_informative(rows, number=5), np.random.default_rng(2)
    order, turn = rng.permutation(len(rows)), np.linalg.qr(rng.normal(size=(7, 7)))[0]
    assert [order[k] for k in most_informative(rows[order] @ turn, number=5)] == chosen
    padded = np.pad(rows, ((0, 0), (0, 2), (0, 0)))
    assert most_informative(padded[:, ::-1], number=5) == chosen


def test_copies_are_taken_once():
    rows = np.repeat(np.eye(3)[:, None], 5, axis=0)
    assert sorted(k // 5 for k in most_informative(rows, number=10)) == [0, 1, 2]
    assert most_informative(np.zeros((0, 2, 3)), number=3) == most_informative(np.zeros((4, 2, 3)), number=3) == []
    with pytest.raises(ValueError, match=r"shape \[2, 1\], need finite numbers"):
        most_informative(np.zeros((2, 1)), number=1)
    with pytest.raises(ValueError, match="finite"):
        most_informative(np.full((2, 1, 1), np.nan), number=1)


def test_one_outlier_does_not_decide():
    """Far from all others it teaches little about them, and its own variance counts with a limit."""
    rows = np.random.default_rng(0).normal(size=(30, 2, 5))
    rows[:, :, 4] = 0
    rows[7, :, 4] = 1e4
    assert 7 not in most_informative(rows, number=1)


@pytest.fixture(scope="module")
def copper():
    """A model with error bars of energies and of densities of states, and its data."""
    frames, model = make_frames(20), random_model(0, ("energy",), species=("Cu",), sel=(20,))
    model.heads["dos"] = SpectrumHead(1, model.descriptor.n_features, ENERGIES, (12,)).double()
    add_error_bars(model, frames.select("train"), frames.select("validation"))
    return model, frames.select("train"), [frame.atoms for frame in frames.select("test")]


def test_rows_are_in_units_of_error_bars(copper):
    """Those of a whole energy, and of atoms, against the posterior that calculators use."""
    model, train, images = copper
    found = {name: informative_rows(model, name, images, train) for name in ("forces", "ados")}
    for atoms, of_energy, of_spectra in zip(images, found["forces"], found["ados"]):
        system = System.from_atoms(atoms)
        environment = model.environment("energy", system, Edges.build(system, model.cutoff))
        z = [contributions(model.heads[name], model.posteriors[name], environment).z for name in ("energy", "dos")]
        bar = z[0].sum(dim=0).norm() / len(atoms) ** 0.5
        assert np.linalg.norm(of_energy[0]) == pytest.approx(float(bar.detach()), rel=1e-3)  # posteriors are rounded
        bars = z[1].norm(dim=1).detach().numpy()
        np.testing.assert_allclose(np.linalg.norm(of_spectra, axis=1)[: len(atoms)], bars, rtol=1e-3)
        assert not of_spectra[len(atoms) :].any()


def test_rows_of_forces_are_changes_along_displacements(copper):
    """Against rows of energies of displaced atoms."""
    model, train, images = copper
    generator = torch.Generator().manual_seed(0)
    (found,) = informative_rows(model, "energy", images[:1], train)
    moves = torch.randn(MOVES, len(images[0]), 3, generator=generator, dtype=torch.float64).numpy()
    assert len(found) == 1 + MOVES
    for k in (0, MOVES - 1):
        moved = [images[0].copy() for _ in range(2)]
        for atoms, step in zip(moved, (1e-4, -1e-4)):
            atoms.positions += step * moves[k]
        ends = informative_rows(model, "energy", moved, train)[:, 0]
        wanted = (ends[0] - ends[1]) / 2e-4 / (3 * MOVES) ** 0.5
        np.testing.assert_allclose(found[1 + k], wanted, atol=1e-5 * abs(wanted).max())


def test_rows_do_not_depend_on_other_structures(copper):
    model, train, images = copper
    both = informative_rows(model, "forces", images[:2], train)
    (alone,) = informative_rows(model, "forces", images[1:2], train)
    np.testing.assert_allclose(both[1], alone, atol=1e-12)


def test_of_many_directions_the_principal_ones_are_kept(monkeypatch):
    monkeypatch.setattr("ase_mlelec.active.rows.MOST_DIRECTIONS", 4)
    generator = torch.Generator().manual_seed(0)
    narrow = torch.randn(5, 2, 3, generator=generator, dtype=torch.float64)
    wide = narrow @ torch.linalg.qr(torch.randn(9, 3, generator=generator, dtype=torch.float64))[0].T
    found = principal(wide)
    assert found.shape == (5, 2, 4)
    flat, wanted = found.flatten(0, 1), wide.flatten(0, 1)
    np.testing.assert_allclose(flat @ flat.T, wanted @ wanted.T, atol=1e-12)


def test_sizes():
    vectors = np.array([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]])
    assert SCORES["forces"].size(vectors, 2) == 5.0
    assert SCORES["energy"].size(0.5, 10) == pytest.approx(0.05)
    assert SCORES["ados"].size(np.array([[1.0, 1.0], [3.0, 4.0]]), 2) == pytest.approx(12.5**0.5)
    assert SCORES["dos"].size(np.array([6.0, 8.0]), 2) == pytest.approx(50**0.5 / 2)
    assert SCORES["gap"].size(0.2, 7) == SCORES["fermi_level"].size(0.2, 3) == pytest.approx(0.2)
    assert SCORES["dipole"].size(np.array([0.0, 3.0, 4.0]), 3) == 5.0


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
