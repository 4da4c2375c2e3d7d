"""How errors and bars of a training structure grow where it is left out of the last layers of a Hamiltonian.

Validation structures of Hamiltonians are few, and every training structure can be left out of the last layers. With the
rows A of its atoms or pairs, and the normal matrix N of all structures with its ridge, ::

    e' = (1 - H)^-1 e,   A (N - A^T A)^-1 A^T = (1 - H)^-1 H,   H = A N^-1 A^T

are the errors without it, and their covariance. Where errors point in no preferred direction, their mean square grows by
the mean of 1/(1 - h)^2 over the eigenvalues h of H, and that of the bars by sum h/(1 - h) / sum h.
Hidden layers have still seen the structure.

Reference: Golub, Heath and Wahba 1979, Technometrics 21, 215, for single rows.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.heads.hamiltonian.members import category

MOST = 0.99  # largest eigenvalue h with which errors are enlarged
STRUCTURES = 32  # training structures that are left out, evenly chosen


class Growth(NamedTuple):
    """Factors of the errors and of the bars of one kind of matrix element."""

    errors: float
    bars: float


class Rows(NamedTuple):
    """Sum [H + 1, H + 1] of the products of the rows of a structure, and their number."""

    products: Tensor
    number: int


def growths(rows: Mapping[str, Rows], normals: Mapping[str, Tensor], ridge: float) -> dict[str, Growth]:
    """Growth by kind of element when a structure is left out.

    Parameters
    ----------
    rows : dict by layer of Rows
        Of the structure.
    normals : dict by layer of Tensor [H + 1, H + 1]
        Sums over all structures, without ridge.
    ridge : float
        In units of the mean diagonal element of the normal matrix.
    """
    sums: dict[str, np.ndarray] = {}
    for name, own in rows.items():
        held = normals[name] + ridge * normals[name].diagonal().mean() * torch.eye(len(own.products)).to(own.products)
        factor = torch.linalg.cholesky(held)
        half = torch.linalg.solve_triangular(factor, own.products, upper=False)
        inner = torch.linalg.solve_triangular(factor, half.T, upper=False)
        h = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0, max=MOST)
        h = h.flip(0)[: own.number]
        found = (1 / (1 - h) ** 2 - 1).sum() + own.number, own.number, (h / (1 - h)).sum(), h.sum()
        kind = category(name)
        sums[kind] = sums.get(kind, np.zeros(4)) + np.array([float(part) for part in found])
    return {kind: Growth((a / b) ** 0.5, (c / d) ** 0.5 if d else 1.0) for kind, (a, b, c, d) in sums.items()}


def evenly(items, most=STRUCTURES):
    """At most ``most`` of ``items``, evenly chosen, the first and the last among them."""
    return [items[k] for k in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))]
