"""What the compiled loops of descriptors need: the edges of all centers as arrays, and factors of the harmonics."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.edges import Edges


class Table:
    """The edges of all centers as arrays.

    Attributes
    ----------
    bounds : array [C + 1]
        Edges of center c are ``bounds[c]`` .. ``bounds[c + 1]``.
    vec : array [3, E], Å
    kinds : array [E]
        Species of the neighbors.
    center : Tensor [E]
    """

    def __init__(self, edges: Edges, kinds: NDArray):
        self.bounds = np.searchsorted(edges.center.numpy(), np.arange(edges.n_centers + 1))
        self.kinds, self.center = kinds, edges.center
        self.vec = edges.vec.detach().T.double().contiguous().numpy()

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def arrays(self) -> tuple[NDArray, NDArray, NDArray]:
        """(bounds, vec, kinds), the first arguments of the loops."""
        return self.bounds, self.vec, self.kinds


def legendre(l_max: int) -> NDArray:
    """First value, and both factors of the recursion in l, of the rows m = 0 .. l_max, l = m .. l_max of ``harmonics``."""
    rows = []
    for m in range(l_max + 1):
        start = math.prod(range(1, 2 * m, 2)) * math.sqrt((2 if m else 1) / math.factorial(2 * m))
        for l in range(m, l_max + 1):
            norm = math.sqrt((l + 1 - m) * (l + 1 + m))
            rows.append((start, (2 * l + 1) / norm, -math.sqrt((l - m) * (l + m)) / norm))
    return np.array(rows)


def rows_like(vec: Tensor, planes: NDArray) -> Tensor:
    """Rows [E, 3] of ``planes`` [3, E], which stay separate in memory, in the precision of ``vec``."""
    return torch.from_numpy(planes).to(vec.dtype).T
