"""Invariants of an atom and three of its neighbours: means over all directions of products of three densities.

    rho_snl(u) = sum_m A_snlm Y_lm(u) / sqrt(2l + 1),      B = <rho_snl rho_s'n'l' rho_s''n''l''>

The mean over the directions u couples l, l' and l'' to a scalar, by the Gaunt coefficients.  The power spectrum and
products of its elements lack it: they do not know how three neighbours stand to one another, but for pairs of them.

Sources: Bartók et al., Phys. Rev. B 87, 184115 (2013), section II, the bispectrum; Drautz, Phys. Rev. B 99, 014104
(2019), three densities.
"""
from itertools import combinations_with_replacement

import numpy as np
import torch
from scipy.integrate import lebedev_rule

from ase_mlelec.descriptors.harmonics import harmonics

HALF = (1.0, 0.61, 0.37)        # no point of a rule is at right angles to it: points of one sign are half of them


class Quadruples(torch.nn.Module):
    """B of all three densities with l > 0 whose l have an even sum, from the smoothest on: the odd ones change sign in
    a mirror, and l = 0 leaves a product of pairs and triples.

    n_species, n_radial, l_max : of the moments, of which those that ``roughness`` allows are used
    roughness : function of n^2 + n'^2 + n''^2 and l^2 + l'^2 + l''^2; up to ``roughest`` (float) there are features

    ``rough`` [F] : the roughness of every feature

    Raises ValueError where no triple is smooth enough.
    """

    def __init__(self, n_species, n_radial, l_max, roughness, roughest):
        super().__init__()
        kinds = [(l, s, n) for l in range(l_max + 1) for s in range(n_species) for n in range(n_radial)]
        triples = _triples(kinds, roughness, roughest)
        if not len(triples):
            raise ValueError(f"got roughest {roughest:g}, but no quadruple is as smooth as that; use a larger one")
        l, _, n = np.transpose(kinds)
        self.l_max, self.n_radial = l[triples].max(), n[triples].max() + 1
        used = (l <= self.l_max) & (n < self.n_radial)          # the moments that are asked for, in the same order
        triples = np.cumsum(used)[triples] - 1
        self.register_buffer("rough", torch.as_tensor(
            roughness((n[used][triples]**2).sum(axis=1), (l[used][triples]**2).sum(axis=1))), persistent=False)
        pairs, which = np.unique(triples[:, :2], axis=0, return_inverse=True)
        self.register_buffer("pairs", torch.as_tensor(pairs.T.copy()), persistent=False)
        self.register_buffer("places", torch.as_tensor(which * used.sum() + triples[:, 2]), persistent=False)
        points, weights = _half_sphere(int(l[used][triples].sum(axis=1).max()))
        rows = harmonics(torch.as_tensor(points), int(self.l_max))
        degree = torch.arange(self.l_max + 1).repeat_interleave(2 * torch.arange(self.l_max + 1) + 1)
        self.register_buffer("rows", rows / (2 * degree[:, None] + 1).double().sqrt(), persistent=False)
        self.register_buffer("weights", torch.as_tensor(weights), persistent=False)

    def forward(self, moments):
        """[C, F] from A [C, (l_max + 1)^2, species, n_radial], with as many l and n as there are."""
        densities = []
        for l in range(self.l_max + 1):
            m = slice(l * l, (l + 1)**2)
            own = moments[:, m, :, :self.n_radial].flatten(2)
            densities.append(own.transpose(1, 2) @ self.rows[m].to(own))
        densities = torch.cat(densities, dim=1)
        first, second = self.pairs
        products = densities[:, first] * densities[:, second] * self.weights.to(densities)
        return (products @ densities.transpose(1, 2)).flatten(1).index_select(1, self.places)


def _triples(kinds, roughness, roughest):
    """[F, 3]: places in ``kinds``, (l, s, n), of three densities, in ascending order."""
    found = []
    for places in combinations_with_replacement(range(len(kinds)), 3):
        (l, _, n), (l2, _, n2), (l3, _, n3) = (kinds[place] for place in places)    # l <= l2 <= l3
        if 0 < l and l3 <= l + l2 and (l + l2 + l3) % 2 == 0 and \
                roughness(n**2 + n2**2 + n3**2, l**2 + l2**2 + l3**2) <= roughest:
            found.append(places)
    return np.reshape(found, (-1, 3)).astype(int)


def _half_sphere(degree):
    """Unit vectors [3, Q] and weights [Q] of means over the sphere, exact for even polynomials of ``degree``."""
    points, weights = lebedev_rule(max(degree | 1, 3))      # there are rules of odd orders
    half = np.asarray(HALF) @ points > 0
    return points[:, half], 2 * weights[half] / weights.sum()
