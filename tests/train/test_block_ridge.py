"""Ridge and weights by cross-validation over blocks, against least squares solved block by block with NumPy."""

import numpy as np
import pytest
import torch

from ase_mlelec.train.block_ridge import (
    MOST_BLOCKS,
    WITHOUT_BLOCKS,
    BlockRidge,
    BlockSums,
    batches_of_blocks,
    blocks_of,
    geometric_mean,
    weighted_sum,
)

P, S, BLOCKS = 5, 3, 4


def problem(noise=0.1, seed=0):
    """Rows and targets of two kinds, each a list over blocks; the second kind has no rows in the first block."""
    rng = np.random.default_rng(seed)
    truth, kinds = rng.normal(size=(P, S)), []
    for counts in ((9, 7, 8, 6), (0, 2, 3, 1)):
        blocks = []
        for n in counts:
            rows = rng.normal(size=(n, P)) * [3, 1, 1, 0.3, 0.1]
            blocks.append((rows, rows @ truth + noise * rng.normal(size=(n, S))))
        kinds.append(blocks)
    return kinds


def summed(kinds):
    found = []
    for blocks in kinds:
        sums = BlockSums(len(blocks))
        for b, (rows, targets) in enumerate(blocks):
            for k in range(0, len(rows), 4):  # in pieces
                sums.add(b, torch.tensor(rows[k : k + 4]), torch.tensor(targets[k : k + 4]))
        found.append(sums)
    return BlockRidge(found)


def by_numpy(kinds, ridge, weights, without=None):
    rows, targets = [], []
    for blocks, weight in zip(kinds, weights):
        root = np.sqrt(weight / sum(part[1].size for part in blocks))
        rows += [root * part[0] for b, part in enumerate(blocks) if b != without]
        targets += [root * part[1] for b, part in enumerate(blocks) if b != without]
    rows, targets = np.concatenate(rows), np.concatenate(targets)
    held = np.sqrt(ridge * np.mean(np.sum(rows**2, axis=0))) * np.eye(P)
    return np.linalg.lstsq(np.concatenate([rows, held]), np.concatenate([targets, np.zeros((P, S))]))[0]


@pytest.mark.parametrize("weights", [(1.0, 0.0), (1.0, 3.0), (0.0, 1.0)])
def test_solution_and_errors_are_those_of_numpy(weights):
    kinds = problem()
    regression = summed(kinds)
    for ridge in (1e-6, 1e-2, 1.0):
        found = regression.solve(ridge, weights)
        np.testing.assert_allclose(found, by_numpy(kinds, ridge, weights), rtol=1e-8)
        squares = [
            sum(
                np.sum((part[0] @ by_numpy(kinds, ridge, weights, without=b) - part[1]) ** 2)
                for b, part in enumerate(blocks)
            )
            / sum(part[1].size for part in blocks)
            for blocks in kinds
        ]
        np.testing.assert_allclose(regression.errors(ridge, weights), np.sqrt(squares), rtol=1e-7)


def test_typical_errors_are_means_of_the_logarithm():
    kinds = problem()
    blocks = [
        [
            np.mean((rows @ by_numpy(kinds, 0.1, (1, 2), without=b) - targets) ** 2)
            for b, (rows, targets) in enumerate(own)
            if len(rows)
        ]
        for own in kinds
    ]
    expected = [np.exp(0.5 * np.mean(np.log(own))) for own in blocks]
    np.testing.assert_allclose(summed(kinds).typical_errors(0.1, (1, 2)), expected, rtol=1e-7)


def test_one_block_unlike_all_others_does_not_choose_the_ridge():
    """Its labels, ten times as large and of another kind, are predicted best by zero; those of the others exactly."""
    blocks = problem(noise=0.01)[0]
    rng = np.random.default_rng(3)
    outlier = 10 * rng.normal(size=(2, P)), 10 * rng.normal(size=(2, S))
    alone = summed([blocks]).choose([(1.0,)], weighted_sum)
    both = summed([[*blocks, outlier]])
    pooled = min(np.geomspace(1e-9, 1e2, 40), key=lambda ridge: both.errors(ridge, (1.0,)))
    assert both.choose([(1.0,)], weighted_sum).ridge < 0.1 * pooled
    assert alone.ridge < 0.1 * pooled


def test_a_block_that_is_known_exactly_has_no_say():
    blocks = problem(noise=1.0)[0]
    nothing = np.zeros((5, P)), np.zeros((5, S))
    regression = summed([[*blocks, nothing]])
    errors = regression.errors(0.1, (1.0,))[0]
    assert regression.typical_errors(0.1, (1.0,))[0] > 0.3 * errors


def test_choice_is_near_the_best_of_a_fine_grid():
    regression = summed(problem(noise=1.0))
    choice = regression.choose([(1.0, 1.0)], weighted_sum)
    own = (1.0, 1.0)
    best = min(weighted_sum(regression.typical_errors(ridge, own), own) for ridge in np.geomspace(1e-9, 1e2, 100))
    assert weighted_sum(regression.typical_errors(choice.ridge, own), own) <= 1.015 * best
    assert choice.errors == regression.errors(choice.ridge, choice.weights)


def test_noise_gets_a_large_ridge_and_order_a_small_one():
    rng = np.random.default_rng(1)
    noise = [[(rng.normal(size=(8, P)), rng.normal(size=(8, S))) for _ in range(BLOCKS)]]
    ridges = [summed(kinds).choose([(1.0,)], weighted_sum).ridge for kinds in (noise, problem(noise=0.0)[:1])]
    assert ridges[0] > 1 and ridges[1] < 1e-6


def test_weights_are_chosen_by_the_score():
    """The kind of labels that is wrong gets no weight, where the errors of the other kind decide."""
    kinds = problem(noise=0.01)
    kinds[1] = [(rows, targets + 10 * rows[:, :1]) for rows, targets in kinds[1]]
    trials = [(1.0, 1.0), (1.0, 100.0), (1.0, 0.0)]
    assert summed(kinds).choose(trials, lambda errors, weights: errors[0]).weights == (1.0, 0.0)
    assert summed(kinds).choose(trials, lambda errors, weights: errors[1]).weights == (1.0, 100.0)


def test_a_single_structure_has_a_fixed_ridge():
    kinds = [blocks[1:2] for blocks in problem()]
    choice = summed(kinds).choose([(1.0, 2.0), (1.0, 0.0)], geometric_mean)
    assert (choice.ridge, choice.weights, choice.errors) == (WITHOUT_BLOCKS, (1.0, 2.0), ())


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 50])
def test_blocks(n):
    blocks = blocks_of(n)
    assert (np.diff(blocks) >= 0).all() and set(blocks) == set(range(min(n, MOST_BLOCKS)))
    assert np.ptp(np.bincount(blocks)) <= 1
    batches = batches_of_blocks(n, 3)
    assert [k for _, chosen in batches for k in chosen] == list(range(n))
    assert all(len(chosen) <= 3 and (blocks[list(chosen)] == block).all() for block, chosen in batches)


def test_scores():
    assert geometric_mean((2.0, 8.0), (1, 5)) == pytest.approx(4.0)
    assert weighted_sum((2.0, 3.0), (4.0, 1.0)) == pytest.approx(5.0)
