"""Selection of structures: those whose labels would teach most about all that were explored."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST = 10.0  # times the median variance: more of a structure does not count


def most_informative(rows: ArrayLike, *, number: int, among: ArrayLike | None = None) -> list[int]:
    r"""Indices of at most ``number`` structures, one after the other by what their labels teach about all.

    Results of a structure c that are linear in the weights of a model, with rows :math:`R_c`, have the variance
    :math:`\mathrm{tr}(R_c P R_c^T)`, where P is the posterior covariance of the weights. It does not depend on the values
    of labels. The labels of a structure s would lower the sum over all structures,
    with :math:`M = \sum_c R_c^T R_c`, by

    .. math::

        \mathrm{tr}\left(R_s P M P R_s^T \, (1 + R_s P R_s^T)^{-1}\right)

    Each structure in turn is the one with the largest reduction when the labels of those before are known. Structures
    like a chosen one thereby lose their worth, and so do outliers from which nothing else is learned. A structure counts in
    M with no more than LARGEST times the median variance. Copies of chosen structures are never taken.

    Parameters
    ----------
    rows : array [n, r, K]
        Rows of every structure, filled up with zeros, in coordinates in which P is the unit matrix now, and in units of
        the noise of a label.
    number : int
    among : array of int, optional
        Structures that may be chosen; default all. The others only count in M.

    Returns
    -------
    list of int

    Raises
    ------
    ValueError
        For rows that are not finite or not of three dimensions.

    References
    ----------
    Cohn, Ghahramani and Jordan 1996, J. Artif. Intell. Res. 4, 129; Yu, Bi and Tresp 2006, Proc. 23rd Int. Conf. Machine
    Learning, 1081.

    Examples
    --------
    Two structures alike, and one that is more uncertain but teaches nothing about others:

    >>> most_informative([[[1.0, 0.0]], [[1.0, 0.1]], [[0.0, 1.1]]], number=2)
    [1, 2]
    """
    known = np.array(rows, dtype=float)
    if known.ndim != 3 or not np.isfinite(known).all():
        raise ValueError(f"got rows of shape {list(known.shape)}, need finite numbers [structures, rows, coordinates]")
    n, r, size = known.shape
    free = np.zeros(n, dtype=bool)
    free[np.arange(n) if among is None else np.asarray(among, dtype=int)] = True
    original, flat = known.copy(), known.reshape(-1, size).copy()
    mean = flat.T @ (_weights(known).repeat(r)[:, None] * flat)
    taught = known @ mean  # rows P M, as known is rows P
    chosen: list[int] = []
    while len(chosen) < number and free.any():
        own = np.flatnonzero(free)
        spread = known[own] @ original[own].transpose(0, 2, 1) + np.eye(r)
        lowered = taught[own] @ known[own].transpose(0, 2, 1)
        gains = np.trace(np.linalg.solve(spread, lowered), axis1=1, axis2=2)
        best = int(own[gains.argmax()])
        if gains.max() <= 0:
            break
        chosen.append(best)
        free &= ~_like(original, best)
        steps = np.linalg.solve(np.linalg.cholesky(known[best] @ original[best].T + np.eye(r)), known[best])
        along = flat @ steps.T  # P loses steps^T steps
        known -= (along @ steps).reshape(known.shape)
        taught -= (along @ (steps @ mean)).reshape(known.shape)
    return chosen


def _weights(rows: NDArray) -> NDArray:
    """Weights [n] of structures in the sum over all."""
    variances = np.square(rows).sum(axis=(1, 2))
    limit = LARGEST * np.median(variances) if len(rows) else 0.0
    return limit / np.maximum(variances, limit) if limit > 0 else np.ones(len(rows))


def _like(rows: NDArray, k: int) -> NDArray:
    """Whether each structure [n] has the rows of structure ``k``, up to rounding."""
    return np.abs(rows - rows[k]).max(axis=(1, 2)) <= 1e-9 * np.abs(rows[k]).max()
