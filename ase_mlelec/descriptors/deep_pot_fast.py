"""Moments of DeepPot-SE by the compiled loops of ``edge_loops``, as an operation of PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.descriptors import edge_loops as loops
from ase_mlelec.descriptors.compiled_edges import Table, legendre, rows_like
from ase_mlelec.descriptors.embedding import ChebyshevEmbedding


class SeriesMoments:
    """Sums over neighbors sum_j R_j G(x_j)^T of a DeepPotSE that is only evaluated, and whose embedding is a series.

    Parameters
    ----------
    descriptor : DeepPotSE
        With a settled embedding for the species of the neighbor alone.
    """

    def __init__(self, descriptor: Any):
        embedding, l_max = descriptor.embedding, descriptor.l_max
        self.slots = sum(descriptor.sel)
        self.forth, self.back = (
            table.double() / self.slots for table in (embedding.forth, embedding.back)
        )  # of the loops
        self.n_species, self.n_terms = len(descriptor.species), embedding.n_basis
        self.everywhere = isinstance(embedding, ChebyshevEmbedding)  # others end at x = 1
        if self.everywhere:
            variable = [1.0, 4 * embedding.cutoff, -3.0]
        else:
            slope = 2 / (embedding.high - embedding.low)
            variable = [0.0, slope, -embedding.low * slope - 1]
        normalization = torch.cat([descriptor.mean[:, None], 1 / descriptor.scale], dim=1).double().numpy()
        # rows of l = 1 are x, y, z
        self.order = np.array([0, 3, 1, 2, *range(4, (l_max + 1) ** 2)])
        self.constants = descriptor.smooth, descriptor.cutoff, l_max
        self.tables = np.ascontiguousarray(normalization), np.array(variable), legendre(l_max), self.order

    def __call__(
        self,
        vec: Tensor,
        table: Table,
        species: Tensor,
        *,
        empty: Callable[[Tensor, Tensor], Tensor] | None,
        plain: Callable[[Tensor], Tensor],
    ) -> Tensor | None:
        """Moments [C, rows, M], divided by the number of slots, differentiable by ``vec`` [E, 3].

        None for atoms so close that no series holds.

        Parameters
        ----------
        vec : Tensor [E, 3]
        table : Table
            Of the same edges.
        species : Tensor [C]
            Of the centers.
        empty : function of the numbers of neighbors [C, species] and ``species``
            Contributions [C, M] of empty slots; None where there are none.
        plain : function
            The moments from vectors by operations of PyTorch, which replaces the loops in second derivatives.
        """
        own, present = species.numpy(), np.zeros((len(table), self.n_species), np.int64)
        moments = np.empty((len(table), len(self.order), self.n_species, self.n_terms))
        if len(table):
            largest = loops.all_series_moments(*table.arrays, own, self.constants, self.tables, moments, present)
            if largest > 1 and not self.everywhere:
                return None
        radial = None if empty is None else empty(torch.from_numpy(present), species)
        return _Moments.apply(vec, self, table, own, torch.from_numpy(moments), radial, plain)

    def gradient(self, table: Table, own: NDArray, coefficients: NDArray) -> NDArray:
        """Derivatives [3, E] by the vectors from ``coefficients`` [C, rows, species, 2, K]."""
        total = np.zeros_like(table.vec)
        if len(table):
            loops.add_series_gradient(*table.arrays, own, self.constants, self.tables, coefficients, total)
        return total


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vec: Tensor,
        of: SeriesMoments,
        table: Table,
        own: NDArray,
        moments: Tensor,
        radial: Tensor | None,
        plain: Callable,
    ) -> Tensor:
        ctx.of, ctx.table, ctx.own, ctx.plain = of, table, own, plain
        ctx.save_for_backward(vec)
        n_centers, n_rows = moments.shape[:2]
        found = torch.mm(moments.view(n_centers * n_rows, len(of.forth)), of.forth)
        found = found.view(n_centers, n_rows, of.forth.shape[1])
        if radial is not None:
            found[:, 0].add_(radial, alpha=1 / of.slots)
        return found.to(vec.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (vec,), of = ctx.saved_tensors, ctx.of
        if torch.is_grad_enabled():
            vec = vec.view_as(vec)
            total = (ctx.plain(vec) * grad).sum()
            return torch.autograd.grad(total, vec, create_graph=True)[0], *[None] * 6
        n_centers, n_rows = grad.shape[:2]
        both = torch.mm(grad.double().reshape(n_centers * n_rows, grad.shape[2]), of.back)
        both = both.view(n_centers, n_rows, of.n_species, 2, of.n_terms)
        return rows_like(vec, of.gradient(ctx.table, ctx.own, both.numpy())), *[None] * 6
