"""Power spectrum of the neighbours' density: features of fixed form, with a measure of how rough each is.

    A_snlm = sum over neighbours j of species s of R_n(r_j) Y_lm(r_j),
    features A_sn00 (pairs),  sum_m A_snlm A_s'n'lm (triples, by P_l of the angle),
    and quadruples and quintuples, of near neighbours (see direction_means.py)

R_n = (1 - (r/cutoff)^2)^2 times a polynomial of degree n in (1 - r/cutoff)/(1 + r/cutoff), orthonormal over distances
from ``inner`` to the cutoff.  High degrees n and l make an energy rough: an energy that is linear in the features, with
a ridge that grows with the degree, is learnt from few structures.

Sources: Bartók et al., Phys. Rev. B 87, 184115 (2013), section II; Drautz, Phys. Rev. B 99, 014104 (2019); a ridge by
degree as the algebraic smoothness prior of Witt et al., J. Chem. Phys. 159, 164101 (2023).
"""
import numpy as np
import torch
from ase.data import atomic_numbers

from ase_mlelec.descriptors.base import Descriptor, Environment, species_table
from ase_mlelec.descriptors.direction_means import DirectionMeans
from ase_mlelec.descriptors.embedding import ChebyshevMoments
from ase_mlelec.descriptors.harmonics import harmonics
from ase_mlelec.descriptors.padding import pad

ANGULAR, STEEPNESS = 0.1, 5     # of the weights of features: l^2 counts so much of n^2, and the power of the roughness
SHARES, STEEPNESS_MANY = {3: 30, 4: 3}, 3     # of those of quadruples and quintuples: how much of them, and the power
PARTS = (0.1, 0.25, 0.5, 0.75)      # of the features of a group, from the smoothest on


class PowerSpectrum(Descriptor):
    """Power spectrum and pair terms.

    species : sequence of chemical symbols
    cutoff : float, Å; inner : float, Å, about the shortest distance; below it the polynomials grow
    n_pair, n_radial : radial functions of the pair terms, and of the triples
    l_max : int, the highest degree of the angle
    near : float, Å; neighbours within it have quadruples and quintuples; 0 for none
    roughest, roughest_5 : float, up to which roughness, 1 + sum of n^2 + (sum of l^2)/10, there are quadruples and
        quintuples; 0 for none

    Features [C, F] with S species: S n_pair of pairs; for every l, S n_radial (S n_radial + 1)/2 of triples; and the
    quadruples and quintuples.  ``weights`` [F] fall with the roughness of a feature, those of pairs and triples,
    1 + n^2 + n'^2 + l^2/10, as its power -5/2, those of more neighbours as -3/2.

    Raises ValueError for numbers out of range.
    """

    def __init__(self, species, cutoff=6.0, inner=2.0, n_pair=12, n_radial=5, l_max=8, near=0.0, roughest=9.0,
                 roughest_5=0.0):
        super().__init__()
        if not (0 < inner < cutoff and 1 <= n_radial <= n_pair and l_max >= 0):
            raise ValueError(f"got cutoff {cutoff}, inner {inner}, n_pair {n_pair}, n_radial {n_radial}, "
                             f"l_max {l_max}; need 0 < inner < cutoff, 1 <= n_radial <= n_pair and l_max >= 0")
        if near and not inner < near <= cutoff:
            raise ValueError(f"got near {near}, need 0 or inner < near <= cutoff, {inner} and {cutoff}")
        self.species, self.cutoff, self.inner = tuple(species), float(cutoff), float(inner)
        self.near, self.roughest, self.roughest_5 = float(near), float(roughest), float(roughest_5)
        self.n_pair, self.n_radial, self.l_max = int(n_pair), int(n_radial), int(l_max)
        self.by_number = sorted(range(len(self.species)), key=lambda k: atomic_numbers[self.species[k]])
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)
        self.register_buffer("radial", torch.as_tensor(_orthonormal(self.inner / self.cutoff, self.n_pair)),
                             persistent=False)
        if near:
            self.register_buffer("near_radial", torch.as_tensor(_orthonormal(self.inner / self.near, self.n_radial)),
                                 persistent=False)
        self.many = torch.nn.ModuleList(
            DirectionMeans(n, len(self.species), self.n_radial, self.l_max, _roughness, limit)
            for n, limit in ((3, self.roughest), (4, self.roughest_5)) if near and limit)
        self.register_buffer("pairs", torch.triu_indices(*(len(self.species) * self.n_radial,) * 2), persistent=False)
        self.register_buffer("weights", self._weights(), persistent=False)
        self.n_features = len(self.weights)

    def feature_weights(self):
        return self.weights

    def feature_groups(self):
        """By the number and the species of the neighbours, each divided by roughness at ``PARTS``."""
        own = np.arange(len(self.species))
        radial = np.repeat(own, self.n_radial)[self.pairs.numpy()]
        members = [np.repeat(own, self.n_pair)[:, None], np.tile(radial.T, (self.l_max + 1, 1)),
                   *(means.members for means in self.many)]
        groups, n_groups = [], 0
        for rough, kinds in zip(self._roughnesses(), members):
            rough = rough.numpy()
            kind = np.unique(kinds, axis=0, return_inverse=True)[1].ravel()
            part = np.zeros_like(kind)
            for k in range(kind.max() + 1):
                part[kind == k] = np.searchsorted(np.quantile(rough[kind == k], PARTS), rough[kind == k])
            found = np.unique(kind * (len(PARTS) + 1) + part, return_inverse=True)[1]
            groups.append(n_groups + found)
            n_groups += found.max() + 1
        return torch.as_tensor(np.concatenate(groups))

    def arguments(self):
        return dict(species=list(self.species), cutoff=self.cutoff, inner=self.inner, n_pair=self.n_pair,
                    n_radial=self.n_radial, l_max=self.l_max, near=self.near, roughest=self.roughest,
                    roughest_5=self.roughest_5)

    def _roughnesses(self):
        """Those of pairs, triples and what is beyond, Tensors."""
        pair, radial = (torch.arange(n).repeat(len(self.species)).double() for n in (self.n_pair, self.n_radial))
        first, second = (radial[index] for index in self.pairs)
        triples = [_roughness(first**2 + second**2, l**2) for l in range(self.l_max + 1)]
        return [_roughness(pair**2, 0), torch.cat(triples), *(means.rough for means in self.many)]

    def _weights(self):
        pairs, triples, *more = self._roughnesses()
        return torch.cat([torch.cat([pairs, triples])**(-STEEPNESS / 2),
                          *(SHARES[means.n_densities] * rough**(-STEEPNESS_MANY / 2)
                            for means, rough in zip(self.many, more))])

    def forward(self, system, edges):
        moments = self._moments(system, edges, self.cutoff, self.radial)
        features = [moments[:, 0].flatten(1)]
        some = moments[..., :self.n_radial].flatten(2)
        upper = self.pairs[0] * some.shape[2] + self.pairs[1]
        for l in range(self.l_max + 1):
            own = some[:, l * l:(l + 1)**2]
            features.append((own.transpose(1, 2) @ own).flatten(1).index_select(1, upper))
        if self.many:
            moments = self._moments(system, edges.closer_than(self.near), self.near, self.near_radial)
            features += [means(moments) for means in self.many]
        return Environment(torch.cat(features, dim=1), self.species_of_number[system.numbers][edges.atoms])

    def _moments(self, system, edges, cutoff, radial):
        """A [C, (l_max + 1)^2, species, n] with the n functions ``radial`` [n, n], which end at ``cutoff``, Å."""
        vec = edges.vec.T.contiguous()
        rho = (vec * vec).sum(dim=0).sqrt() / cutoff
        fade = (1 - rho**2).clamp(min=0)**2
        angular = fade * harmonics(vec / (rho * cutoff), self.l_max)
        table = torch.cat([_variable(rho, self.inner / cutoff)[None], angular])
        kind = self.species_of_number[system.numbers].index_select(0, edges.neighbor)
        padded, _, blocks = pad(edges.center, kind, table, edges.n_centers, self.by_number)
        moments, _ = ChebyshevMoments.apply(padded, blocks, len(radial))
        return moments @ radial.to(moments)


def _roughness(n_squares, l_squares):
    return 1 + n_squares + ANGULAR * l_squares


def _variable(rho, inner):
    """From 1 at ``inner`` to -1 at ρ = 1."""
    return 2 * (1 - rho) * (1 + inner) / ((1 + rho) * (1 - inner)) - 1


def _orthonormal(inner, n):
    """Chebyshev coefficients [n, n] in ``_variable``, a column per function, orthonormal over inner < ρ < 1."""
    rho = inner + (1 - inner) * (np.arange(2000) + 0.5) / 2000
    values = np.polynomial.chebyshev.chebvander(_variable(rho, inner), n - 1) * ((1 - rho**2)**2)[:, None]
    triangle = np.linalg.qr(values / np.sqrt(len(rho)), mode="r")
    return np.linalg.inv(triangle) * np.sign(np.diag(triangle))
