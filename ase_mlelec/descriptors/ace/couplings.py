"""Couplings of products of densities to invariants.

Means over all directions u couple any number of densities,

    rho_snl(u) = sum_m A_snlm Y_lm(u) / sqrt(2l + 1),      B = <rho_snl rho_s'n'l' rho_s''n''l''> for three,

because the mean over directions of a product is invariant under rotations. For one and for two densities the means are
A_sn00 and the power spectrum, which need no directions.

References
----------
Bartók et al., Phys. Rev. B 87, 184115 (2013), section II, the bispectrum; Drautz, Phys. Rev. B 99, 014104 (2019), any
number of densities.
"""

from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import lebedev_rule
from torch import Tensor

from ase_mlelec.descriptors.ace.moments import MomentGradients
from ase_mlelec.descriptors.ace.orders import Order, densities_of, groups_of, squares_of
from ase_mlelec.descriptors.bispectrum.tables import LEBEDEV_DEGREES
from ase_mlelec.descriptors.harmonics import harmonics

HALF = (1.0, 0.61, 0.37)  # no point of a quadrature rule is perpendicular to this vector, so that it halves the sphere


def coupling(number: int, order: Order, n_species: int) -> "Coupling":
    """Make the Coupling of correlation order ``number`` = 1, 2, ...

    Raises
    ------
    ValueError
        For errors of the Coupling, and for an order without any product that is smooth enough.
    """
    kinds = densities_of(order, n_species)
    wanted = order.max_roughness != 0
    groups = (
        groups_of(kinds, number, order.max_roughness, scalars=order.scalars)
        if wanted
        else np.zeros((0, number), dtype=int)
    )
    if wanted and not len(groups):
        raise ValueError(
            f"got a max_roughness of {order.max_roughness:g}, but nothing of an atom and {number} neighbors is as "
            "smooth as that; use a larger one, or 0 for none"
        )
    ways = {1: Single, 2: PowerSpectrum}
    return ways.get(number, DirectionMeans)(kinds, groups)


class Coupling(torch.nn.Module):
    """Base of couplings: invariants of products of densities, one density per column of ``groups``.

    Parameters
    ----------
    kinds : array [K, 3]
        (l, species, n) of the densities.
    groups : array [F, order]
        Places in ``kinds`` of the densities of each product.

    Attributes
    ----------
    squares : array [2, F]
        Sums of n^2 and of l^2 of each feature.
    """

    places: Tensor

    def __init__(self, kinds: NDArray, groups: NDArray):
        super().__init__()
        self.squares = squares_of(kinds, groups)
        l, _, n = kinds.T
        self.n_radial, self.l_max = int(n[groups].max(initial=0)) + 1, int(l[groups].max(initial=0))

    def forward(self, moments: Tensor) -> Tensor:
        """Features [C, F] from the atomic basis A [C, (l_max + 1)^2, species, n]."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(moments)")

    def add_gradients(self, total: Tensor, moved: MomentGradients) -> None:
        """Add the derivatives of the features, summed over the centers, to ``total`` [F, T].

        Parameters
        ----------
        total : Tensor [F, T]
            T counts the coordinates of all atoms, and components of the strain.
        """
        raise NotImplementedError(f"{type(self).__name__} must define add_gradients(total, moved)")

    def add_contracted(self, moments: Tensor, weights: Tensor, gradient: Tensor) -> Tensor:
        """Sums [C] of the features times ``weights`` [F], without the features themselves.

        Their derivatives by ``moments`` are added to ``gradient``. The weights are multiplied with one factor of the
        products first, so that value and derivatives need a product of matrices each.
        """
        raise NotImplementedError(f"{type(self).__name__} must define add_contracted(moments, weights, gradient)")

    def _table(self, weights, *shape):
        """Weights as a table of all combinations, where features have ``places``."""
        return weights.new_zeros(int(np.prod(shape))).index_copy(0, self.places, weights).view(shape)


class Single(Coupling):
    """Single densities with l = 0: order 1, two-body terms."""

    def __init__(self, kinds: NDArray, groups: NDArray):
        super().__init__(kinds, groups)
        self.register_buffer("places", torch.as_tensor(_places(kinds, groups, self.n_radial)[:, 0]), persistent=False)

    def forward(self, moments: Tensor) -> Tensor:
        return moments[:, 0, :, : self.n_radial].flatten(1).index_select(1, self.places)

    def add_gradients(self, total: Tensor, moved: MomentGradients) -> None:
        for species, (slopes, columns) in enumerate(zip(*moved[1:])):
            rows = (self.places // self.n_radial == species).nonzero()[:, 0]
            n = self.places[rows] % self.n_radial
            total[rows[:, None], columns] += slopes[:, 0].sum(dim=1)[n]

    def add_contracted(self, moments: Tensor, weights: Tensor, gradient: Tensor) -> Tensor:
        table = self._table(weights, moments.shape[2], self.n_radial)
        gradient[:, 0, :, : self.n_radial] += table
        return (moments[:, 0, :, : self.n_radial] * table).sum(dim=(1, 2))


class PowerSpectrum(Coupling):
    """Scalar products of two densities: order 2, three-body terms."""

    def __init__(self, kinds: NDArray, groups: NDArray):
        super().__init__(kinds, groups)
        l, n = kinds[groups[:, 0], 0], (int(kinds[:, 1].max()) + 1) * self.n_radial
        first, second = _places(kinds, groups, self.n_radial).T
        self.register_buffer("places", torch.as_tensor((l * n + first) * n + second), persistent=False)

    def forward(self, moments: Tensor) -> Tensor:
        some = moments[..., : self.n_radial].flatten(2)
        own = [some[:, l * l : (l + 1) ** 2] for l in range(self.l_max + 1)]
        return torch.cat([(part.transpose(1, 2) @ part).flatten(1) for part in own], dim=1).index_select(1, self.places)

    def add_gradients(self, total: Tensor, moved: MomentGradients) -> None:
        some = moved.moments[..., : self.n_radial].flatten(2)  # [C, (l_max + 1)^2, K]
        size = some.shape[2]
        for l in range(self.l_max + 1):
            rows = (self.places // size**2 == l).nonzero()[:, 0]
            m = slice(l * l, (l + 1) ** 2)
            others = some[:, m].permute(2, 1, 0)  # [K, 2 l + 1, C]
            products = total.new_zeros(moved.n_species, self.n_radial, size, total.shape[1])
            for part, slopes, columns in zip(products, *moved[1:]):
                part[:, :, columns] = others.flatten(1) @ slopes[: self.n_radial, m].flatten(1, 2)
            products = products.flatten(0, 1)
            first, second = self.places[rows] // size % size, self.places[rows] % size
            total[rows] += products[first, second] + products[second, first]

    def add_contracted(self, moments: Tensor, weights: Tensor, gradient: Tensor) -> Tensor:
        some = moments[..., : self.n_radial].flatten(2)  # [C, (l_max + 1)^2, K]
        table = self._table(weights, self.l_max + 1, some.shape[2], some.shape[2])
        total = some.new_zeros(len(some))
        for l, own in enumerate(table + table.mT):
            m = slice(l * l, (l + 1) ** 2)
            slopes = some[:, m] @ own
            total += (some[:, m] * slopes).sum(dim=(1, 2)) / 2
            gradient[:, m, :, : self.n_radial] += slopes.unflatten(2, (moments.shape[2], self.n_radial))
        return total


class DirectionMeans(Coupling):
    """Means over directions of products of densities: orders 3 and up.

    Raises
    ------
    ValueError
        For a product whose sum of l is too large for all quadrature rules.
    """

    groups: Tensor
    first: Tensor
    second: Tensor
    products: Tensor
    others: Tensor
    slots: Tensor
    rows: Tensor
    weights: Tensor

    def __init__(self, kinds: NDArray, groups: NDArray):
        super().__init__(kinds, groups)
        l, species, n = kinds.T
        used = (l <= self.l_max) & (n < self.n_radial)  # densities of this order, in the order of the moments
        degree = int(l[groups].sum(axis=1).max(initial=0))
        groups = (np.cumsum(used) - 1)[groups]
        self.register_buffer("groups", torch.as_tensor(groups), persistent=False)
        first, place = np.unique(groups[:, :2], axis=0, return_inverse=True)
        second, place_2 = np.unique(groups[:, 2:], axis=0, return_inverse=True)
        self.register_buffer("first", torch.as_tensor(first.T.copy()), persistent=False)
        self.register_buffer("second", torch.as_tensor(second.T.copy()), persistent=False)
        self.register_buffer("places", torch.as_tensor(place * len(second) + place_2), persistent=False)
        self._prepare_gradients(groups, species[used])
        points, weights = half_sphere(degree)
        rows = harmonics(torch.as_tensor(points), self.l_max)
        degrees = torch.arange(self.l_max + 1).repeat_interleave(2 * torch.arange(self.l_max + 1) + 1)
        self.register_buffer("rows", rows / (2 * degrees[:, None] + 1).double().sqrt(), persistent=False)
        self.register_buffer("weights", torch.as_tensor(weights), persistent=False)

    def _prepare_gradients(self, groups, species):
        """Tables of the derivative by each density of a product: which others it is multiplied with, sorted by density."""
        size = groups.shape[1]
        others = np.stack([np.delete(groups, slot, axis=1) for slot in range(size)])  # [size, F, size - 1]
        products, place = np.unique(others.reshape(-1, size - 1), axis=0, return_inverse=True)
        density = groups.T.ravel()
        order = np.argsort(density, kind="stable")
        self.bounds = np.searchsorted(density[order], np.arange(len(species) + 1)).tolist()
        n_species = int(species.max(initial=0)) + 1
        slots = np.zeros((n_species, len(density)), dtype=int)
        for k in range(n_species):  # rows after a first one
            mine = order[species[density[order]] == k]
            slots[k, mine] = 1 + np.arange(len(mine))
        self.n_rows = [1 + int((own > 0).sum()) for own in slots]
        self.register_buffer("products", torch.as_tensor(products), persistent=False)
        self.register_buffer("others", torch.as_tensor(place.ravel()[order]), persistent=False)
        self.register_buffer("slots", torch.as_tensor(slots.reshape(n_species, size, -1)), persistent=False)

    def forward(self, moments: Tensor) -> Tensor:
        densities = self._densities(moments)
        first, second = (
            reduce(torch.mul, [densities.index_select(1, column) for column in columns])
            for columns in (self.first, self.second)
        )
        return ((first * self.weights.to(first)) @ second.transpose(1, 2)).flatten(1).index_select(1, self.places)

    def add_gradients(self, total: Tensor, moved: MomentGradients) -> None:
        rest = self._rest(moved.moments)
        # a first row of zeros for slots of other species, then those of each density in turn
        parts = [total.new_zeros(n, len(columns)) for n, columns in zip(self.n_rows, moved.columns)]
        ends = [1] * len(parts)
        for k in range(len(self.bounds) - 1):
            l, rest_of_k = divmod(k, moved.n_species * self.n_radial)
            species, n = divmod(rest_of_k, self.n_radial)
            m = slice(l * l, (l + 1) ** 2)
            others = self.others[self.bounds[k] : self.bounds[k + 1]]
            mine = rest[m].transpose(0, 1)[others].flatten(1)  # [f, (2 l + 1) C]
            start = ends[species]
            ends[species] = start + len(mine)
            slopes = moved.by_coordinates[species][n, m].flatten(0, 1)
            torch.mm(mine, slopes, out=parts[species][start : ends[species]])
        for slots, part, columns in zip(self.slots, parts, moved.columns):
            total.index_add_(1, columns, reduce(torch.add, [part[slot] for slot in slots]))

    def _rest(self, moments):
        """What a density is multiplied with in the mean, for all products of other densities, [(l_max + 1)^2, R, C]."""
        densities = self._densities(moments).permute(2, 1, 0).contiguous()  # [Q, densities, C]
        weighted = densities * self.weights.to(densities)[:, None, None]
        first, *others = (place for place in self.products.T)
        rest = reduce(torch.mul, [densities[:, place] for place in others], weighted[:, first])
        return (self.rows.to(rest) @ rest.flatten(1)).unflatten(1, rest.shape[1:])

    def add_contracted(self, moments: Tensor, weights: Tensor, gradient: Tensor) -> Tensor:
        densities = self._densities(moments).transpose(0, 1)
        n_centers, n_points = densities.shape[1:]
        densities = densities.flatten(1)  # [densities, C Q]
        first, second = (_product(densities, columns) for columns in (self.first, self.second))
        quadrature = self.weights.to(weights).repeat(n_centers)
        table = self._table(weights, len(first), len(second))
        of_first, of_second = table @ (second * quadrature), (table.T @ first).mul_(quadrature)
        total = (second * of_second).sum(dim=0).view(n_centers, n_points).sum(dim=1)
        slopes = torch.zeros_like(densities)
        for columns, own in ((self.first, of_first), (self.second, of_second)):
            for k, column in enumerate(columns):
                others = [densities.index_select(0, other) for j, other in enumerate(columns) if j != k]
                slopes.index_add_(0, column, reduce(torch.mul, others, own))
        by_l = slopes.view(self.l_max + 1, len(slopes) // (self.l_max + 1), n_centers, n_points)
        for l, own in enumerate(by_l):
            m = slice(l * l, (l + 1) ** 2)
            of_moments = (own @ self.rows[m].T.to(own)).permute(1, 2, 0)  # [C, 2 l + 1, species n]
            gradient[:, m, :, : self.n_radial] += of_moments.unflatten(2, (moments.shape[2], self.n_radial))
        return total

    def _densities(self, moments):
        """Densities rho at the directions, [C, densities, Q], sorted by l, then species, then n."""
        found = []
        for l in range(self.l_max + 1):
            m = slice(l * l, (l + 1) ** 2)
            own = moments[:, m, :, : self.n_radial].flatten(2)
            found.append(own.transpose(1, 2) @ self.rows[m].to(own))
        return torch.cat(found, dim=1)


def _product(densities, columns):
    return reduce(torch.mul, [densities.index_select(0, column) for column in columns])


def _places(kinds, groups, n_radial):
    """Places [F, order] of the densities of products in the flattened [species, n] of one l."""
    return kinds[groups, 1] * n_radial + kinds[groups, 2]


def half_sphere(degree):
    """Quadrature of half the sphere: unit vectors [3, Q] and weights [Q], exact for even polynomials of ``degree``."""
    if degree > LEBEDEV_DEGREES[-1]:
        raise ValueError(
            f"got l with a sum of {degree} in a product of densities, more than {LEBEDEV_DEGREES[-1]}; use a "
            "smaller l_max or max_roughness"
        )
    points, weights = lebedev_rule(next(rule for rule in LEBEDEV_DEGREES if rule >= degree))
    half = np.asarray(HALF) @ points > 0
    return points[:, half], 2 * weights[half] / weights.sum()
