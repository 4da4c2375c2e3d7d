"""Selection of structures: the least certain, and different from each other."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def diverse(features: ArrayLike, scores: ArrayLike, *, number: int) -> list[int]:
    r"""Indices of at most ``number`` structures, by farthest points weighted with their scores.

    The first is the structure with the largest score :math:`s`. Each of the next is the one with the largest

    .. math::

        s_i \min_{j\ \mathrm{chosen}} |x_i - x_j|

    so that it is both uncertain and unlike those that were chosen before. Copies of chosen structures are never taken.

    Parameters
    ----------
    features : array [n, F]
    scores : array [n]
        Not negative.
    number : int

    Returns
    -------
    list of int

    Raises
    ------
    ValueError
        For different numbers of features and scores.

    Examples
    --------
    >>> diverse([[0.0], [0.1], [5.0]], [3.0, 2.9, 1.0], number=2)
    [0, 2]
    """
    points, weights = np.asarray(features, dtype=float), np.asarray(scores, dtype=float)
    if len(points) != len(weights):
        raise ValueError(f"got {len(points)} rows of features and {len(weights)} scores, need one for each structure")
    if not len(points):
        return []
    chosen = [int(weights.argmax())]
    apart = _distances(points, chosen[0])
    while len(chosen) < number:
        gain = weights * apart
        gain[chosen] = -1.0
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(best)
        apart = np.minimum(apart, _distances(points, best))
    return chosen


def _distances(points: NDArray, k: int) -> NDArray:
    """Distances [n] of all points from point ``k``."""
    return np.linalg.norm(points - points[k], axis=1)
