"""ACE invariants by the compiled loops of ``edge_loops`` and ``loops``, as operations of PyTorch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.descriptors import edge_loops
from ase_mlelec.descriptors.ace import loops
from ase_mlelec.descriptors.ace.couplings import Coupling, DirectionMeans, PowerSpectrum, Single
from ase_mlelec.descriptors.ace.moments import DensityMoments
from ase_mlelec.descriptors.compiled_edges import Table, legendre, rows_like
from ase_mlelec.edges import Edges
from ase_mlelec.lanes import aligned

POINTS = 32  # numbers of directions are filled up to multiples of it: ``loops`` sums four vectors at a time


class Invariants:
    """Invariants of an ACE descriptor: the features, or their sums with given weights.

    Parameters
    ----------
    sets : sequence of DensityMoments, float64
    couplings : sequence of Coupling, float64
    source : sequence of int
        Number of the set of each coupling.
    n_species : int
    """

    def __init__(
        self, sets: Sequence[DensityMoments], couplings: Sequence[Coupling], source: Sequence[int], n_species: int
    ):
        self.sets = [Moments(part, n_species) for part in sets]
        starts = np.cumsum([0, *(part.squares.shape[1] for part in couplings)]).tolist()
        self.n_features = starts[-1]
        self.parts = [
            (k, _part(part, len(self.sets[k].radial), n_species, start))
            for part, k, start, end in zip(couplings, source, starts, starts[1:])
            if end > start
        ]

    def features(self, edges: Edges, kinds: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
        """Features [C, F], differentiable by ``edges.vec``.

        Parameters
        ----------
        edges : Edges
        kinds : Tensor [E]
            Species of the neighbors.
        plain : function
            The features from vectors [E, 3], by operations of PyTorch; it replaces the loops where the result is
            differentiated twice.
        """
        return _Features.apply(edges.vec, self, Table(edges, kinds.numpy()), plain)

    def sums_with_gradient(
        self, edges: Edges, kinds: NDArray, weights: Tensor, species: NDArray
    ) -> tuple[Tensor, Tensor]:
        """Sums [C] of the features times ``weights`` [species, F], and derivatives [E, 3] of their sum by the vectors.

        ``kinds`` [E] are the species of the neighbors, ``species`` [C] those of the centers.
        """
        table = Table(edges, kinds)
        sums, slopes = self.contract([part.moments(table) for part in self.sets], _plain(weights), species)
        return torch.from_numpy(sums).to(weights.dtype), rows_like(edges.vec, self.gradient(table, slopes))

    def fill(self, moments: Sequence[NDArray]) -> NDArray:
        """Features [C, F] from the atomic basis of every set."""
        features = np.empty((len(moments[0]), self.n_features))
        for k, part in self.parts:
            part.fill(moments[k], features)
        return features

    def contract(self, moments: Sequence[NDArray], weights: NDArray, row: NDArray) -> tuple[NDArray, list]:
        """Sums [C] of the features times ``weights[row]`` [C, F], and their derivatives by the atomic bases."""
        sums, slopes = np.zeros(len(row)), [np.zeros_like(part) for part in moments]
        for k, part in self.parts:
            part.contract(moments[k], weights, row, sums, slopes[k])
        return sums, slopes

    def gradient(self, table: Table, slopes: Sequence[NDArray]) -> NDArray:
        """Derivatives [3, E] by the vectors from those by the atomic bases."""
        total = np.zeros_like(table.vec)
        for part, own in zip(self.sets, slopes):
            part.add_gradient(table, own, total)
        return total


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vec: Tensor, of: Invariants, table: Table, plain: Callable) -> Tensor:
        moments = [part.moments(table) for part in of.sets]
        ctx.of, ctx.table, ctx.plain, ctx.moments = of, table, plain, moments
        ctx.save_for_backward(vec)
        return torch.from_numpy(of.fill(moments)).to(vec.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (vec,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            vec = vec.view_as(vec)
            total = (ctx.plain(vec) * grad).sum()
            return torch.autograd.grad(total, vec, create_graph=True)[0], None, None, None
        _, slopes = ctx.of.contract(ctx.moments, _plain(grad), np.arange(len(grad)))
        return rows_like(vec, ctx.of.gradient(ctx.table, slopes)), None, None, None


def _plain(weights):
    return weights.detach().double().contiguous().numpy()


class Moments:
    """The atomic basis of a DensityMoments for ``n_species``, and its derivative."""

    def __init__(self, part: DensityMoments, n_species: int):
        self.l_max, self.radial = part.l_max, np.ascontiguousarray(part.radial.numpy())
        self.columns = n_species * len(self.radial)
        self.constants = float(part.cutoff), float(part.inner), self.radial, part.l_max, legendre(part.l_max)

    def moments(self, table: Table) -> NDArray:
        """A [C, species n, (l_max + 1)^2]."""
        found = np.empty((len(table), self.columns, (self.l_max + 1) ** 2))
        if len(table):
            edge_loops.all_moments(*table.arrays, *self.constants, found)
        return found

    def add_gradient(self, table: Table, of_moments: NDArray, gradient: NDArray) -> None:
        """Add the derivatives by A to those by the vectors, ``gradient`` [3, E]."""
        if len(table):
            edge_loops.add_gradient(*table.arrays, *self.constants, of_moments, gradient)


def _part(part, n_radial, n_species, start):
    """Loops of a Coupling whose moments have ``n_radial`` functions, and whose features begin at ``start``."""
    kind: Any = {Single: SingleLoops, PowerSpectrum: PowerLoops, DirectionMeans: MeanLoops}[type(part)]
    return kind(part, n_radial, n_species, start)


class SingleLoops:
    """Features of a Single."""

    def __init__(self, part: Single, n_radial: int, n_species: int, start: int):
        places = part.places.numpy()
        self.columns = places // part.n_radial * n_radial + places % part.n_radial
        self.own = slice(start, start + len(places))

    def fill(self, moments: NDArray, features: NDArray) -> None:
        features[:, self.own] = moments[:, self.columns, 0]

    def contract(self, moments: NDArray, weights: NDArray, row: NDArray, sums: NDArray, slopes: NDArray) -> None:
        own = weights[row, self.own]
        sums += (own * moments[:, self.columns, 0]).sum(axis=1)
        slopes[:, self.columns, 0] += own


class PowerLoops:
    """Features of a PowerSpectrum."""

    def __init__(self, part: PowerSpectrum, n_radial: int, n_species: int, start: int):
        size, places = n_species * part.n_radial, part.places.numpy()
        first, second = (
            k // part.n_radial * n_radial + k % part.n_radial for k in (places // size % size, places % size)
        )
        self.arguments = first, second, places // size**2, start

    def fill(self, moments: NDArray, features: NDArray) -> None:
        loops.power_features(moments, *self.arguments, features)

    def contract(self, moments: NDArray, weights: NDArray, row: NDArray, sums: NDArray, slopes: NDArray) -> None:
        loops.power_contracted(moments, *self.arguments, weights, row, sums, slopes)


class MeanLoops:
    """Features of DirectionMeans."""

    def __init__(self, part: DirectionMeans, n_radial: int, n_species: int, start: int):
        first, second = part.first.T.numpy(), part.second.T.numpy()
        used, number = np.unique(np.concatenate([first.ravel(), second.ravel()]), return_inverse=True)
        l, rest = np.divmod(used, n_species * part.n_radial)
        kinds = np.stack([l, rest // part.n_radial * n_radial + rest % part.n_radial], axis=1)
        first, second = number[: first.size].reshape(first.shape), number[first.size :].reshape(second.shape)
        self.densities = kinds, _filled(part.rows.numpy()), _filled(part.weights.numpy())
        self.products = _two(first, len(kinds)), _two(second, len(kinds))
        self.runs = np.searchsorted(self.products[0][:, 0], np.arange(len(kinds) + 1))  # first factors are sorted
        place, partner = np.divmod(part.places.numpy(), len(second))
        order = np.argsort(place, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(first)))])
        self.forth = ends, partner[order].astype(np.int32), order + start

    def fill(self, moments: NDArray, features: NDArray) -> None:
        loops.mean_features(moments, *self.densities, *self.products, self.forth, features)

    def contract(self, moments: NDArray, weights: NDArray, row: NDArray, sums: NDArray, slopes: NDArray) -> None:
        first, second = self.products
        loops.mean_contracted(
            moments, *self.densities, first, self.runs, second, self.forth, weights, row, sums, slopes
        )


def _two(columns, one):
    """Two factors each [P, 2], the number ``one`` where there is no second."""
    return np.ascontiguousarray(np.pad(columns, [(0, 0), (0, 2 - columns.shape[1])], constant_values=one))


def _filled(values):
    """Values with zeros after them along the last axis, up to a multiple of POINTS."""
    filled = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % POINTS)])
    found = aligned(filled.shape, filled.dtype)
    found[...] = filled
    return found
