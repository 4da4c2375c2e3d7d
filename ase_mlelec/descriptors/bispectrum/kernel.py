"""From neighbors on the group SU(2) to bispectrum components, and back: batched matrix products with fixed tables.

Both ways are written by hand as programs: lists of operations on arrays that are laid out once and used for block after
block of centers. Fresh memory, views and autograd's records would cost more than the arithmetic.

Index letters: P centers, K neighbors, U numbers of all U_j, L and R rows of the moments, G x S = X points of a
quadrature rule.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.descriptors.bispectrum import tables as constants


class Group:
    """Tables of the triple products that share a quadrature rule."""

    def __init__(self, tables: constants.GroupTables, real: Callable[[NDArray], Tensor]):
        self.js, self.runs, self.places = tables.js, tables.runs, tables.places
        self.n_pairs, self.n_thirds = tables.n_pairs, tables.n_thirds
        self.n_products = self.n_pairs * self.n_thirds
        self.sphere, self.gamma = (
            {j: real(table) for j, table in stage.items()} for stage in (tables.sphere, tables.gamma)
        )
        j = self.js[0]
        self.n_gamma, self.n_sphere = len(self.gamma[j]), self.sphere[j].shape[2]
        self.sphere_back = {j: _join_parts(table[1 - j % 2 :]) for j, table in self.sphere.items()}


class Kernel:
    """The tables for one twojmax, dtype and device."""

    def __init__(self, twojmax: int, dtype: torch.dtype, device: str | torch.device):
        self.twojmax = twojmax

        def integers(array):
            return torch.as_tensor(np.array(array), device=device)

        def real(array):
            return torch.as_tensor(np.array(array), device=device).to(dtype)

        moments = constants.moment_tables(twojmax)
        self.n_columns = moments.n_columns
        self.first, self.second, self.sign = integers(moments.first), integers(moments.second), real(moments.sign)
        self.back, self.back_second = integers(moments.back), integers(moments.back_second)
        self.back_sign = real(moments.back_sign)
        self.series = [real(rows) for rows in moments.series]
        self.starts = [0, *accumulate(rows.shape[1] for rows in moments.series)]  # of the parts of [U] and [V]
        self.identity = real(moments.identity)
        n_orders = (twojmax + 4) // 4 * 4  # a multiple of four: the matrix product is three times faster
        orders = moments.orders[:, None] == np.arange(n_orders)
        self.norm = real(orders * moments.multiplicity[:, None])  # |U|^2 [P, U] -> sum by order
        self.n_rows = [2 * (twojmax - 2 * n) + 1 for n in range(twojmax // 2 + 1)]  # of a^p s^n, by n
        self.powers = real(np.arange(1, twojmax + 1))[:, None, None, None]
        self.groups = [Group(tables, real) for tables in constants.group_tables(twojmax, moments.columns)]
        self._index_planes(moments.columns, integers)
        self._index_components(integers, real)

    def _index_planes(self, columns, integers):
        """Which numbers of U the planes of each order are made of: [P, U] -> [P, all orders, j+1, 2 (j+1)].

        Backward each number comes from one place: cos and sin are summed by the matrix product.
        """
        names, place = [], np.zeros(len(columns), dtype=int)
        self.plane_starts, self.block_starts, n_blocks = {}, {}, 0
        for j in range(1, self.twojmax + 1):
            self.plane_starts[j], self.block_starts[j] = sum(map(len, names)), n_blocks
            for ma, part in constants.plane_rows(j):
                found, signs = constants.plane_columns(j, ma, columns)
                names.append(found)
                if part == 0:
                    place[found[signs != 0]] = n_blocks + np.nonzero(signs)[0]
                    n_blocks += len(found)
        self.planes, self.n_planes = integers(np.concatenate(names)), sum(map(len, names))
        self.unplane, self.n_blocks = integers(place), n_blocks

    def _index_components(self, integers, real):
        """Which of the triple products (those with an order 0 last) is which component, and its factor j + 1."""
        places, offset = {}, 0
        for group in self.groups:
            places |= {triple: offset + place for triple, place in group.places.items() if triple not in places}
            offset += group.n_pairs * group.n_thirds
        places |= {(0, j, j): offset + j for j in range(self.twojmax + 1)}
        self.n_products = offset + self.norm.shape[1]
        triples = constants.triples(self.twojmax)
        self.place = integers([places[tuple(sorted(map(int, triple)))] for triple in triples])
        self.scale = real([triple[2] + 1.0 if triple.min() else 1.0 for triple in triples])


@lru_cache(maxsize=8)
def kernel(twojmax: int, dtype: torch.dtype, device: str | torch.device) -> Kernel:
    """The Kernel, made once."""
    return Kernel(twojmax, dtype, device)


def _join_parts(planes):
    """[2 m, C, S] with cos and sin in turn -> [m, 2 S, C]"""
    n_planes, n_columns, n_sphere = planes.shape
    return planes.reshape(n_planes // 2, 2, n_columns, n_sphere).transpose(2, 3).reshape(-1, 2 * n_sphere, n_columns)
