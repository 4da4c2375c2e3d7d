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

    def __init__(self, kinds: NDArray, groups: NDArray):
        super().__init__()
        self.squares = squares_of(kinds, groups)
        l, _, n = kinds.T
        self.n_radial, self.l_max = int(n[groups].max(initial=0)) + 1, int(l[groups].max(initial=0))

    def forward(self, moments: Tensor) -> Tensor:
        """Features [C, F] from the atomic basis A [C, (l_max + 1)^2, species, n]."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(moments)")

    def add_gradients(self, total: Tensor, atoms: Tensor, moved: MomentGradients) -> None:
        """Add the derivatives of the features, summed over the centers, to ``total`` [F, T].

        Parameters
        ----------
        total : Tensor [F, T]
            T counts the coordinates of all atoms, and components of the strain.
        atoms : Tensor [C]
            Atom of each center.
        """
        raise NotImplementedError(f"{type(self).__name__} must define add_gradients(total, atoms, moved)")


class Single(Coupling):
    """Single densities with l = 0: order 1, two-body terms."""

    places: Tensor

    def __init__(self, kinds: NDArray, groups: NDArray):
        super().__init__(kinds, groups)
        self.register_buffer("places", torch.as_tensor(_places(kinds, groups, self.n_radial)[:, 0]), persistent=False)

    def forward(self, moments: Tensor) -> Tensor:
        return moments[:, 0, :, : self.n_radial].flatten(1).index_select(1, self.places)

    def add_gradients(self, total: Tensor, atoms: Tensor, moved: MomentGradients) -> None:
        own = 3 * atoms[:, None] + torch.arange(3, device=atoms.device)
        for species, (neighbors, centers, columns) in enumerate(zip(*moved[1:])):
            rows = (self.places // self.n_radial == species).nonzero()[:, 0]
            n = self.places[rows] % self.n_radial
            part = total.new_zeros(len(rows), total.shape[1])
            part[:, columns] = neighbors[n, 0].sum(dim=1)
            part.index_add_(1, own.flatten(), centers[n, 0].flatten(1))
            total[rows] += part


class PowerSpectrum(Coupling):
    """Scalar products of two densities: order 2, three-body terms."""

    places: Tensor

    def __init__(self, kinds: NDArray, groups: NDArray):
        super().__init__(kinds, groups)
        l, n = kinds[groups[:, 0], 0], (int(kinds[:, 1].max()) + 1) * self.n_radial
        first, second = _places(kinds, groups, self.n_radial).T
        self.register_buffer("places", torch.as_tensor((l * n + first) * n + second), persistent=False)

    def forward(self, moments: Tensor) -> Tensor:
        some = moments[..., : self.n_radial].flatten(2)
        own = [some[:, l * l : (l + 1) ** 2] for l in range(self.l_max + 1)]
        return torch.cat([(part.transpose(1, 2) @ part).flatten(1) for part in own], dim=1).index_select(1, self.places)

    def add_gradients(self, total: Tensor, atoms: Tensor, moved: MomentGradients) -> None:
        some = moved.moments[..., : self.n_radial].flatten(2)  # [C, (l_max + 1)^2, K]
        own = (3 * atoms[:, None] + torch.arange(3, device=atoms.device)).flatten()
        size = some.shape[2]
        for l in range(self.l_max + 1):
            rows = (self.places // size**2 == l).nonzero()[:, 0]
            m = slice(l * l, (l + 1) ** 2)
            others = some[:, m].permute(2, 1, 0)  # [K, 2 l + 1, C]
            products = total.new_zeros(moved.n_species, self.n_radial, size, total.shape[1])
            for part, neighbors, centers, columns in zip(products, *moved[1:]):
                near = neighbors[: self.n_radial, m].flatten(1, 2)  # [n, (2 l + 1) C, T]
                part[:, :, columns] = others.flatten(1) @ near
                alone = torch.einsum("kmc,nmcx->nkcx", others, centers[: self.n_radial, m])
                part.flatten(0, 1).index_add_(1, own, alone.flatten(2).flatten(0, 1))
            products = products.flatten(0, 1)
            first, second = self.places[rows] // size % size, self.places[rows] % size
            total[rows] += products[first, second] + products[second, first]


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
    places: Tensor
    rows: Tensor
    weights: Tensor

    def __init__(self, kinds: NDArray, groups: NDArray):
        super().__init__(kinds, groups)
        l, _, n = kinds.T
        used = (l <= self.l_max) & (n < self.n_radial)  # densities of this order, in the order of the moments
        degree = int(l[groups].sum(axis=1).max(initial=0))
        groups = (np.cumsum(used) - 1)[groups]
        self.register_buffer("groups", torch.as_tensor(groups), persistent=False)
        first, place = np.unique(groups[:, :2], axis=0, return_inverse=True)
        second, place_2 = np.unique(groups[:, 2:], axis=0, return_inverse=True)
        self.register_buffer("first", torch.as_tensor(first.T.copy()), persistent=False)
        self.register_buffer("second", torch.as_tensor(second.T.copy()), persistent=False)
        self.register_buffer("places", torch.as_tensor(place * len(second) + place_2), persistent=False)
        points, weights = _half_sphere(degree)
        rows = harmonics(torch.as_tensor(points), self.l_max)
        degrees = torch.arange(self.l_max + 1).repeat_interleave(2 * torch.arange(self.l_max + 1) + 1)
        self.register_buffer("rows", rows / (2 * degrees[:, None] + 1).double().sqrt(), persistent=False)
        self.register_buffer("weights", torch.as_tensor(weights), persistent=False)

    def forward(self, moments: Tensor) -> Tensor:
        densities = self._densities(moments)
        first, second = (
            reduce(torch.mul, [densities.index_select(1, column) for column in columns])
            for columns in (self.first, self.second)
        )
        return ((first * self.weights.to(first)) @ second.transpose(1, 2)).flatten(1).index_select(1, self.places)

    def add_gradients(self, total: Tensor, atoms: Tensor, moved: MomentGradients) -> None:
        densities = self._densities(moved.moments).transpose(0, 1).contiguous()
        own = (3 * atoms[:, None] + torch.arange(3, device=atoms.device)).flatten()
        parts = [(total.new_zeros(len(total), len(columns)), columns) for columns in moved.columns]
        alone = total.new_zeros(len(total), len(own))
        for k in range(len(densities)):
            features, place = (self.groups == k).nonzero(as_tuple=True)
            if not len(features):
                continue
            size = self.groups.shape[1]
            others = self.groups[features][torch.arange(size, device=place.device) != place[:, None]]
            rest = reduce(torch.mul, densities[others.reshape(-1, size - 1).T]) * self.weights.to(total)
            l, rest_of_k = divmod(k, moved.n_species * self.n_radial)
            species, n = divmod(rest_of_k, self.n_radial)
            m = slice(l * l, (l + 1) ** 2)
            rest = (rest @ self.rows[m].T.to(total)).transpose(1, 2)  # [f, 2 l + 1, C]
            near = moved.by_neighbors[species][n, m].flatten(0, 1)
            parts[species][0].index_add_(0, features, rest.flatten(1) @ near)
            of_center = torch.einsum("fmc,mcx->fcx", rest, moved.by_centers[species][n, m])
            alone.index_add_(0, features, of_center.flatten(1))
        for part, columns in parts:
            total.index_add_(1, columns, part)
        total.index_add_(1, own, alone)

    def _densities(self, moments):
        """Densities rho at the directions, [C, densities, Q], sorted by l, then species, then n."""
        found = []
        for l in range(self.l_max + 1):
            m = slice(l * l, (l + 1) ** 2)
            own = moments[:, m, :, : self.n_radial].flatten(2)
            found.append(own.transpose(1, 2) @ self.rows[m].to(own))
        return torch.cat(found, dim=1)


def _places(kinds, groups, n_radial):
    """Places [F, order] of the densities of products in the flattened [species, n] of one l."""
    return kinds[groups, 1] * n_radial + kinds[groups, 2]


def _half_sphere(degree):
    """Quadrature of half the sphere: unit vectors [3, Q] and weights [Q], exact for even polynomials of ``degree``."""
    if degree > LEBEDEV_DEGREES[-1]:
        raise ValueError(
            f"got l with a sum of {degree} in a product of densities, more than {LEBEDEV_DEGREES[-1]}; use a "
            "smaller l_max or max_roughness"
        )
    points, weights = lebedev_rule(next(rule for rule in LEBEDEV_DEGREES if rule >= degree))
    half = np.asarray(HALF) @ points > 0
    return points[:, half], 2 * weights[half] / weights.sum()
