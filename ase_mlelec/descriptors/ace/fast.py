"""ACE invariants by the compiled loops of ``edge_loops`` and ``loops``, as operations of PyTorch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.descriptors import edge_loops
from ase_mlelec.descriptors.ace import gradient_loops, loops
from ase_mlelec.descriptors.ace.couplings import Coupling, DirectionMeans, PowerSpectrum, Single
from ase_mlelec.descriptors.ace.moments import DensityMoments
from ase_mlelec.descriptors.ace.product_tables import products_of
from ase_mlelec.descriptors.compiled_edges import Table, legendre, rows_like
from ase_mlelec.edges import Edges
from ase_mlelec.lanes import aligned


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
            (k, _part(part, self.sets[k].l_max, len(self.sets[k].radial), n_species, start))
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

    def sums(
        self, edges: Edges, weights: Tensor, kinds: NDArray, species: NDArray, *, wants_features: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Sums [W, C] of the features times ``weights`` [W, species, F], and derivatives [E, 3] of those of all centers.

        ``kinds`` [E] are the species of the neighbors, ``species`` [C] those of the centers. Returns (features [C, F], or
        [0, F] where they are not wanted, sums, derivatives by the vectors for each of the W weights).
        """
        table = Table(edges, kinds)
        moments = [part.moments(table) for part in self.sets]
        sums, slopes, features = self.contract(moments, _plain(weights), species, wants_features=wants_features)
        gradients = [rows_like(edges.vec, each) for each in self.gradient(table, slopes)]
        return torch.from_numpy(features).to(weights.dtype), torch.from_numpy(sums).to(weights.dtype), gradients

    def fill(self, moments: Sequence[NDArray]) -> NDArray:
        """Features [C, F] from the atomic basis of every set."""
        weights = np.empty((0, 1, self.n_features))
        return self.contract(moments, weights, np.zeros(len(moments[0]), int), wants_features=True)[2]

    def contract(
        self, moments: Sequence[NDArray], weights: NDArray, row: NDArray, *, wants_features: bool = False
    ) -> tuple[NDArray, list, NDArray]:
        """Sums [W, C] of the features times ``weights[:, row]`` [W, C, F], and their derivatives by the atomic bases.

        The third is the features [C, F], or [0, F] where they are not wanted.
        """
        sums = np.zeros((len(weights), len(row)))
        slopes = [np.zeros((len(weights), *part.shape)) for part in moments]
        features = np.empty((len(row) if wants_features else 0, self.n_features))
        for k, part in self.parts:
            part.contract(moments[k], weights, row, sums, slopes[k], features)
        return sums, slopes, features

    def summed_gradients(
        self, edges: Edges, kinds: NDArray, species: NDArray, *, n_atoms: int, strain: bool
    ) -> NDArray:
        """Derivatives [T, species, F] of the features, summed over the centers of each species; see the Descriptor.

        ``kinds`` [E] are the species of the neighbors, ``species`` [C] those of the centers.
        """
        table, n_species = Table(edges, kinds), self.sets[0].n_species
        result = np.zeros((3 * n_atoms + 9 * strain, n_species, self.n_features))
        columns = 3 * edges.neighbor.numpy(), 3 * edges.atoms.numpy()
        bases = [part.moments(table) for part in self.sets]
        for k, part in self.parts:
            for begin in range(0, len(table), loops.LANES):
                end = min(begin + loops.LANES, len(table))
                if table.bounds[end] > table.bounds[begin]:
                    slopes, densities = part.slopes(bases[k], begin), part.densities
                    functions = *table.arrays, *self.sets[k].constants
                    whose = *columns, species, n_species, int(strain)
                    gradient_loops.add_changes(
                        begin, end, *functions, slopes, *densities, *whose, part.first_feature, result
                    )
        return result

    def gradient(self, table: Table, slopes: Sequence[NDArray]) -> NDArray:
        """Derivatives [W, 3, E] by the vectors from those by the atomic bases [W, C, ...]."""
        total = np.zeros((len(slopes[0]), *table.vec.shape))
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
        _, slopes, _ = ctx.of.contract(ctx.moments, _plain(grad)[None], np.arange(len(grad)))
        return rows_like(vec, ctx.of.gradient(ctx.table, slopes)[0]), None, None, None


def _plain(weights):
    return weights.detach().double().contiguous().numpy()


class Moments:
    """The atomic basis of a DensityMoments for ``n_species``, and its derivative."""

    def __init__(self, part: DensityMoments, n_species: int):
        self.l_max, self.radial = part.l_max, np.ascontiguousarray(part.radial.numpy())
        self.n_species, self.columns = n_species, n_species * len(self.radial)
        self.constants = float(part.cutoff), float(part.inner), self.radial, part.l_max, legendre(part.l_max)

    def moments(self, table: Table) -> NDArray:
        """A [C, species n, (l_max + 1)^2]."""
        found = np.empty((len(table), self.columns, (self.l_max + 1) ** 2))
        if len(table):
            edge_loops.all_moments(*table.arrays, *self.constants, found)
        return found

    def add_gradient(self, table: Table, of_moments: NDArray, gradient: NDArray) -> None:
        """Add the derivatives by A to those by the vectors, ``gradient`` [W, 3, E]."""
        if len(table):
            edge_loops.add_gradient(*table.arrays, *self.constants, of_moments, gradient)


def _part(part, l_max, n_radial, n_species, start):
    """Loops of a Coupling whose moments have ``n_radial`` functions, and whose features begin at ``start``."""
    if isinstance(part, Single):
        return SingleLoops(part, n_radial, l_max, start)
    return ProductLoops(part, l_max, n_radial, n_species, start)


class SingleLoops:
    """Features of a Single."""

    def __init__(self, part: Single, n_radial: int, l_max: int, start: int):
        places = part.places.numpy()
        species, n = np.divmod(places, part.n_radial)
        self.columns = species * n_radial + n
        self.own, self.first_feature = slice(start, start + len(places)), start
        ones, n_angular = np.ones_like(places), (l_max + 1) ** 2
        densities = np.stack([self.columns * n_angular, ones, species, n * n_angular], axis=1)
        number = np.arange(len(places))
        self.densities = number, np.append(number, len(places)), densities, number

    def slopes(self, moments: NDArray, start: int) -> NDArray:
        """Derivatives [F, lanes] of the features by the densities."""
        return np.ones((len(self.columns), loops.LANES))

    def contract(
        self, moments: NDArray, weights: NDArray, row: NDArray, sums: NDArray, slopes: NDArray, features: NDArray
    ) -> None:
        own = moments[:, self.columns, 0]
        features[:, self.own] = own[: len(features)]
        for known, total, slope in zip(weights, sums, slopes):
            of_centers = known[row, self.own]
            total += (of_centers * own).sum(axis=1)
            slope[:, self.columns, 0] += of_centers


class ProductLoops:
    """Features of a PowerSpectrum, or of DirectionMeans."""

    def __init__(self, part: PowerSpectrum | DirectionMeans, l_max: int, n_radial: int, n_species: int, start: int):
        self.products = products_of(part, n_radial, n_species, l_max, start)
        first, second = self.products[:2]
        pairs = [own.places[:, 1] * own.places[:, 3] for own in (first, second)]
        starts = np.append(first.shapes[:: loops.FACTORS, 3], first.shapes[:, 2].sum())
        self.sizes = (int(np.diff(starts).max(initial=0)), int(np.concatenate(pairs).max(initial=0)))
        self.n_seconds, self.first_feature = int(second.shapes[:, 2].sum()), start
        of_first = np.repeat(np.arange(len(first.shapes)), np.diff(self.products.ends))
        starts_of_terms = self.products.terms[np.minimum(self.products.term_ends[:-1], len(self.products.terms) - 1), 1]
        self.second_of = np.searchsorted(second.shapes[:, 3], starts_of_terms, side="right") - 1
        places = np.concatenate([first.places[of_first], second.places[self.second_of]], axis=1).reshape(-1, 4, 2)
        n_angular = (l_max + 1) ** 2
        self.densities = _densities(places, self.products.features - start, n_angular, n_radial, n_species)

    def slopes(self, moments: NDArray, start: int) -> NDArray:
        """Derivatives [numbers, lanes] of the features by the numbers of their densities, of the centers from ``start``."""
        _, part_ends, parts, _ = self.densities
        found = aligned((int(parts[:, 1].sum()), loops.LANES), float)
        tables = self.products, self.sizes, self.n_seconds, self.second_of, part_ends, parts
        gradient_loops.slopes_of_features(start, moments, *tables, found)
        return found

    def contract(
        self, moments: NDArray, weights: NDArray, row: NDArray, sums: NDArray, slopes: NDArray, features: NDArray
    ) -> None:
        flat = slopes.reshape(*slopes.shape[:2], np.prod(slopes.shape[2:]))
        loops.contract(moments, self.products, self.sizes, self.n_seconds, weights, row, sums, flat, features)


def _densities(places, features, n_angular, n_radial, n_species):
    """Tables of ``gradient_loops``: products in the order of ``features``, ends of the densities of each, these, and starts.

    ``places`` [F, 4, 2] are the first numbers of the densities of every product in a block of A, and how many they are; a
    density that comes twice, and the number 1 behind all others, are left out.
    """
    first = places[:, :, 0]
    known = first == n_species * n_radial * n_angular
    for k in range(1, first.shape[1]):
        known[:, k] |= (first[:, :k] == first[:, k : k + 1]).any(axis=1)
    chosen = places[~known]
    column, l_square = np.divmod(chosen[:, 0], n_angular)
    species, n = np.divmod(column, n_radial)
    parts = np.column_stack([chosen, species, n * n_angular + l_square])
    starts = np.cumsum(chosen[:, 1]) - chosen[:, 1]
    return np.argsort(features), np.append(0, np.cumsum((~known).sum(axis=1))), parts, starts
