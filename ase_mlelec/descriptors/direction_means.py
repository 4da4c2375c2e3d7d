"""Invariants of an atom and several of its neighbours: means over all directions of products of densities.

    rho_snl(u) = sum_m A_snlm Y_lm(u) / sqrt(2l + 1),      B = <rho_snl rho_s'n'l' rho_s''n''l''> for three

The mean over the directions u couples all l to a scalar.  The power spectrum and products of its elements lack these: of
how three neighbours stand to one another they know but pairs.  Three densities are quadruples of atoms, four quintuples.

Sources: Bartók et al., Phys. Rev. B 87, 184115 (2013), section II, the bispectrum; Drautz, Phys. Rev. B 99, 014104
(2019), any number of densities.
"""

from functools import reduce

import numpy as np
import torch
from scipy.integrate import lebedev_rule

from ase_mlelec.descriptors.harmonics import harmonics
from ase_mlelec.descriptors.wigner import LEBEDEV_DEGREES

MOST_GROUPS = 4_000_000
HALF = (1.0, 0.61, 0.37)  # no point of a rule is at right angles to it: points of one sign are half of them


class DirectionMeans(torch.nn.Module):
    """B of all groups of densities with l > 0 whose l have an even sum, from the smoothest on: the odd ones change sign
    in a mirror, and l = 0 leaves a product of fewer.

    n_densities : int, 3 or 4 in a group
    n_species, n_radial, l_max : of the moments, of which those that ``roughness`` allows are used
    roughness : function of the sums of n^2 and of l^2, growing with both; up to ``roughest`` (float) there are features

    ``n_densities``; ``squares``, array [2, F], the sums of n^2 and of l^2 of every feature; ``members``, array
    [F, n_densities] of species

    Raises ValueError where no group is smooth enough, or the sum of l of one is beyond every rule of directions.
    """

    def __init__(self, n_densities, n_species, n_radial, l_max, roughness, roughest):
        super().__init__()
        self.n_densities = n_densities
        kinds = np.array([(l, s, n) for l in range(l_max + 1) for s in range(n_species) for n in range(n_radial)])
        groups = _groups(kinds, n_densities, roughness, roughest)
        if not len(groups):
            raise ValueError(
                f"got a roughest one of {roughest:g}, but none of an atom and {n_densities} neighbours is "
                "as smooth as that; use a larger one"
            )
        l, s, n = kinds.T
        self.members, self.squares = np.sort(s[groups], axis=1), _squares(kinds, groups)
        self.l_max, self.n_radial = l[groups].max(), n[groups].max() + 1
        used = (l <= self.l_max) & (n < self.n_radial)  # the moments that are asked for, in the same order
        degree = int(l[groups].sum(axis=1).max())
        groups = np.cumsum(used)[groups] - 1
        self.register_buffer("groups", torch.as_tensor(groups), persistent=False)
        first, place = np.unique(groups[:, :2], axis=0, return_inverse=True)
        second, place_2 = np.unique(groups[:, 2:], axis=0, return_inverse=True)
        self.register_buffer("first", torch.as_tensor(first.T.copy()), persistent=False)
        self.register_buffer("second", torch.as_tensor(second.T.copy()), persistent=False)
        self.register_buffer("places", torch.as_tensor(place * len(second) + place_2), persistent=False)
        points, weights = _half_sphere(degree)
        rows = harmonics(torch.as_tensor(points), int(self.l_max))
        degrees = torch.arange(self.l_max + 1).repeat_interleave(2 * torch.arange(self.l_max + 1) + 1)
        self.register_buffer("rows", rows / (2 * degrees[:, None] + 1).double().sqrt(), persistent=False)
        self.register_buffer("weights", torch.as_tensor(weights), persistent=False)

    def forward(self, moments):
        """[C, F] from A [C, (l_max + 1)^2, species, n_radial], with as many l and n as there are."""
        densities = self._densities(moments)
        first, second = (
            reduce(torch.mul, [densities.index_select(1, column) for column in columns])
            for columns in (self.first, self.second)
        )
        return ((first * self.weights.to(first)) @ second.transpose(1, 2)).flatten(1).index_select(1, self.places)

    def summed_changes(self, moments, moved):
        """[T, F]: by how much the features, summed over the centres, change along T moves of the moments, ``moved``
        [C, T, (l_max + 1)^2, species, n_radial].
        """
        densities = self._densities(moments).transpose(0, 1).contiguous()
        moved = moved[:, :, : (self.l_max + 1) ** 2, :, : self.n_radial].flatten(3).permute(3, 0, 2, 1).contiguous()
        rows, changes = self.rows.to(moments), moved.new_zeros(len(self.groups), moved.shape[3])
        for k in range(len(densities)):
            features, place = (self.groups == k).nonzero(as_tuple=True)
            if not len(features):
                continue
            others = self.groups[features][torch.arange(self.n_densities, device=place.device) != place[:, None]]
            rest = reduce(torch.mul, densities[others.reshape(-1, self.n_densities - 1).T]) * self.weights.to(rows)
            l, n = divmod(k, len(moved))
            m = slice(l * l, (l + 1) ** 2)
            changes.index_add_(0, features, (rest @ rows[m].T).flatten(1) @ moved[n, :, m].flatten(0, 1))
        return changes.T

    def _densities(self, moments):
        """rho at the directions, [C, densities, Q]: by l, then species, then n."""
        found = []
        for l in range(self.l_max + 1):
            m = slice(l * l, (l + 1) ** 2)
            own = moments[:, m, :, : self.n_radial].flatten(2)
            found.append(own.transpose(1, 2) @ self.rows[m].to(own))
        return torch.cat(found, dim=1)


def _groups(kinds, size, roughness, roughest):
    """[F, size]: places in ``kinds`` [K, (l, s, n)] of the densities of every group, in ascending order."""
    l = kinds[:, 0]
    groups = np.flatnonzero(l > 0)[:, None]
    for _ in range(size - 1):
        if len(groups) * len(kinds) > MOST_GROUPS:
            raise ValueError(
                "got too many groups of densities to go through; use a smaller roughest, l_max or n_radial"
            )
        which, place = np.nonzero(groups[:, -1:] <= np.arange(len(kinds)))
        groups = np.column_stack([groups[which], place])
        groups = groups[roughness(*_squares(kinds, groups)) <= roughest]  # one more density only adds to it
    total = l[groups].sum(axis=1)
    return groups[(total % 2 == 0) & (2 * l[groups].max(axis=1) <= total)]


def _squares(kinds, groups):
    """[2, F]: sums of n^2 and of l^2."""
    l, _, n = kinds.T
    return np.stack([(n[groups] ** 2).sum(axis=1), (l[groups] ** 2).sum(axis=1)])


def _half_sphere(degree):
    """Unit vectors [3, Q] and weights [Q] of means over the sphere, exact for even polynomials of ``degree``."""
    if degree > LEBEDEV_DEGREES[-1]:
        raise ValueError(
            f"got l with a sum of {degree} in a group of densities, more than {LEBEDEV_DEGREES[-1]}; use a "
            "smaller l_max or roughest"
        )
    points, weights = lebedev_rule(next(rule for rule in LEBEDEV_DEGREES if rule >= degree))
    half = np.asarray(HALF) @ points > 0
    return points[:, half], 2 * weights[half] / weights.sum()
