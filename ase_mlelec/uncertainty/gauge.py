"""Shifts of the energies of species that no label of the training data determines.

Where all structures have one composition, the atoms of one species may be raised by any energy if those of another are
lowered in turn. How the model shares out the energy there is a choice of the ridge, a gauge, and no error: standard
deviations of the energies of atoms leave it out.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

SMALLEST = 1e-8  # singular value of compositions, relative to the largest one, that is not zero by rounding


def undetermined_shifts(counts: ArrayLike) -> NDArray:
    """Orthonormal shifts [species, M] of the constants of species that change no energy of known structures.

    Parameters
    ----------
    counts : array [n, species]
        Numbers of atoms of the structures with an energy; with n = 0 all shifts are undetermined.
    """
    counts = np.asarray(counts, dtype=float)
    if not len(counts):
        return np.eye(counts.shape[1])
    _, values, vectors = np.linalg.svd(counts / counts.sum(axis=1, keepdims=True))
    return vectors[int((values > SMALLEST * values[0]).sum()) :].T


def gauge_of(inputs: Tensor, shifts: ArrayLike, *, prior: Tensor | None = None) -> Tensor:
    r"""Part [species, K] of the coordinates of every center that comes from undetermined shifts.

    Parameters
    ----------
    inputs : Tensor [P, K]
        Factor X of the covariance, with the constant of each species behind its weights.
    shifts : array [species, M]
        Result of ``undetermined_shifts``.
    prior : Tensor [P, P]
        Matrix R that the ridge of the covariance multiplies; default the unit matrix.

    Notes
    -----
    .. math::

        G = U (U^T R U)^{-1} U^T R X

    With the shifts U as changes of the weights, normal equations :math:`A^T A + r R` and A U = 0, the covariance is that of
    two independent parts, of which one is :math:`U (r\, U^T R U)^{-1} U^T`. X without G is a factor of the other part.
    """
    shifts = torch.as_tensor(np.asarray(shifts)).to(inputs)
    n_species = len(shifts)
    whole = inputs.new_zeros(n_species, len(inputs) // n_species, shifts.shape[1])
    whole[:, -1] = shifts
    weighted = whole.flatten(0, 1) if prior is None else prior.to(inputs) @ whole.flatten(0, 1)
    return shifts @ torch.linalg.solve(weighted.T @ whole.flatten(0, 1), weighted.T @ inputs)
