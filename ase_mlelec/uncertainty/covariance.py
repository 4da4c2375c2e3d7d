"""Factors of the posterior covariance of weights that enter linearly."""

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.matrices import cholesky

EXACT = 500  # weights; the covariance of more weights is sketched by N_DIRECTIONS samples
N_DIRECTIONS = 64
LEAST = 1e-13  # smallest ridge: it only keeps the matrix positive definite


def posterior_of(factor: Tensor, n_samples: int, *, seed: int = 0) -> Tensor:
    """Sketch the inverse of a normal matrix by samples of the posterior.

    Parameters
    ----------
    factor : Tensor [P, P]
        Lower Cholesky factor L of the normal matrix A^T A + ridge.
    n_samples : int
        Number K of samples. The relative error of a standard deviation from the sketch is (2 K)^(-1/2).
    seed : int
        The result depends on it alone.

    Returns
    -------
    Tensor [P, K]
        X with X X^T ≈ (L L^T)^-1, and equal to it on average over seeds.
    """
    noise = np.random.default_rng(seed).standard_normal((len(factor), n_samples)) / n_samples**0.5
    return torch.linalg.solve_triangular(factor.mT, torch.as_tensor(noise).to(factor), upper=True)


def posterior_of_rows(rows: Tensor, roots: Tensor, kernel: Tensor, ridge: float, *, seed: int = 0) -> Tensor:
    """Sketch the inverse of A^T A + ridge, for fewer rows A = diag(roots) rows than columns.

    Samples of the prior are shrunk along what the rows determine: with A = U S V^T they become those of the posterior by
    the factor (1 + S^2/ridge)^(-1/2) along V. No matrix of the size of the columns is needed, and the order of the rows
    plays no part.

    Parameters
    ----------
    rows : Tensor [n, P]
    roots : Tensor [n]
    kernel : Tensor [n, n]
        A A^T.
    seed : int
        As in ``posterior_of``.

    Returns
    -------
    Tensor [P, K]
        X with X X^T ≈ (A^T A + ridge)^-1, and equal to it on average over seeds; K is N_DIRECTIONS.
    """
    noise = np.random.default_rng(seed).standard_normal((rows.shape[1], N_DIRECTIONS))
    prior = torch.as_tensor(noise).to(rows) / (ridge * N_DIRECTIONS) ** 0.5
    squares, left = torch.linalg.eigh(kernel)
    # forces that add up to zero have rows that depend on each other: what is left of them by rounding says nothing
    known = squares > len(squares) * torch.finfo(squares.dtype).eps * squares[-1]
    squares, left = squares[known], roots[:, None] * left[:, known]
    change = ((1 + squares / ridge) ** -0.5 - 1) / squares
    return prior + rows.T @ (left @ (change[:, None] * (left.T @ (rows @ prior))))


def inverse_factor(normal: Tensor, ridge: float, *, prior: Tensor | None = None, most: int = EXACT) -> Tensor:
    """Factor of the inverse of ``normal`` plus a ridge: exact for at most ``most`` weights, otherwise a sketch.

    Parameters
    ----------
    normal : Tensor [P, P]
        Sum of the products of the rows of the training data.
    ridge : float
        In units of the mean diagonal element of ``normal``.
    prior : Tensor [P, P]
        Matrix that the ridge multiplies, in units of its mean diagonal element; default the unit matrix.

    Returns
    -------
    Tensor [P, K]
        X with X X^T = (normal + ridge)^-1, or approximately so.

    Raises
    ------
    ValueError
        Where the matrix is not positive definite.
    """
    held, size = normal.clone(), float(normal.diagonal().mean())
    if prior is not None:
        held += (ridge * size / float(prior.diagonal().mean())) * prior
    # beside a prior of few directions, rounding is in units of the larger of both matrices
    held.diagonal().add_((ridge if prior is None else LEAST * len(normal) * (1 + ridge)) * size + 1e-300)
    factor = cholesky(held)  # as that of the solution: what one does not call indefinite, another may
    if factor is None:
        raise ValueError(f"the normal matrix with ridge {ridge:g} is not positive definite; give a larger ridge")
    if len(normal) > most:
        return posterior_of(factor, N_DIRECTIONS)
    return torch.linalg.solve_triangular(factor.mT, torch.eye(len(normal)).to(factor), upper=True)
