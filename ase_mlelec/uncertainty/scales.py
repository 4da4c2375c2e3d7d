"""Calibration of standard deviations: one scale, and how often errors are within one and two of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

NONE = 1e-300  # in place of a deviation of zero
ONE, TWO = 0.6827, 0.9545  # probabilities within one and two standard deviations


class Coverage(NamedTuple):
    """Shares of errors within one and two standard deviations, and Spearman's correlation of error and deviation."""

    within_one: float
    within_two: float
    rank_correlation: float


def _both(errors: ArrayLike, deviations: ArrayLike) -> tuple[NDArray, NDArray]:
    errors, deviations = (np.asarray(part, dtype=float).ravel() for part in (errors, deviations))
    if len(errors) != len(deviations) or not len(errors):
        raise ValueError(
            f"got {len(errors)} errors and {len(deviations)} standard deviations, need equal numbers of both; give one "
            "standard deviation for every error"
        )
    return np.abs(errors), np.maximum(deviations, NONE)


def scale_of(errors: ArrayLike, deviations: ArrayLike) -> float:
    """Return the factor of ``deviations`` for which 68 % of the errors are within one and 95 % within two of them.

    Where no factor does both, it is between the two, so that neither share is far from its value. Deviations of zero,
    such as those of forces that vanish by symmetry, have no part in it; 1 where there are no others.
    """
    errors, deviations = _both(errors, deviations)
    chosen = deviations > NONE
    if not chosen.any():
        return 1.0
    ratios = errors[chosen] / deviations[chosen]
    one, two = np.quantile(ratios, [ONE, TWO])
    return float(np.sqrt(max(one * two / 2, 1e-300)))


def log_likelihood(errors: ArrayLike, deviations: ArrayLike) -> float:
    """Return the mean logarithm of the normal probability density of errors."""
    errors, deviations = _both(errors, deviations)
    return float(-np.mean(np.log(deviations) + 0.5 * (errors / deviations) ** 2) - 0.5 * np.log(2 * np.pi))


def coverage(errors: ArrayLike, deviations: ArrayLike) -> Coverage:
    """Return the shares of errors within one and two standard deviations, and the rank correlation with them."""
    errors, deviations = _both(errors, deviations)
    ranks = [_ranks(part) for part in (errors, deviations)]
    same = min(np.ptp(part) for part in ranks) == 0
    correlation = 0.0 if same else float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return Coverage(float(np.mean(errors <= deviations)), float(np.mean(errors <= 2 * deviations)), correlation)


def _ranks(values: NDArray) -> NDArray:
    """Ranks of values; equal values have their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]
