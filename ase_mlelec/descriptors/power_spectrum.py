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

from ase_mlelec.descriptors.base import Descriptor, Environment, changes_along, species_table
from ase_mlelec.descriptors.direction_means import DirectionMeans
from ase_mlelec.descriptors.embedding import ChebyshevMoments
from ase_mlelec.descriptors.harmonics import harmonics
from ase_mlelec.descriptors.padding import pad

ANGULAR, STEEPNESS = 0.1, 5  # of the weights of features: l^2 counts so much of n^2, and the power of the roughness
SHARES, STEEPNESS_MANY = {3: 30, 4: 3}, 3  # of those of quadruples and quintuples: how much of them, and the power
CENTRES = 32  # at a time, for what moves change
MOST_RADIAL, LARGEST_L = 64, 30  # 12 and 8 are usual
PARTS = (0.2, 0.5, 0.8)  # of the features of a kind, from the smoothest on


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

    def __init__(
        self, species, cutoff=6.0, inner=2.0, n_pair=12, n_radial=5, l_max=8, near=0.0, roughest=9.0, roughest_5=0.0
    ):
        super().__init__()
        if not (0 < inner < cutoff and 1 <= n_radial <= n_pair and l_max >= 0):
            raise ValueError(
                f"got cutoff {cutoff}, inner {inner}, n_pair {n_pair}, n_radial {n_radial}, "
                f"l_max {l_max}; need 0 < inner < cutoff, 1 <= n_radial <= n_pair and l_max >= 0"
            )
        if n_pair > MOST_RADIAL or l_max > LARGEST_L:
            raise ValueError(f"got n_pair {n_pair} and l_max {l_max}; need at most {MOST_RADIAL} and {LARGEST_L}")
        if near and not inner < near <= cutoff:
            raise ValueError(f"got near {near}, need 0 or inner < near <= cutoff, {inner} and {cutoff}")
        self.species, self.cutoff, self.inner = tuple(species), float(cutoff), float(inner)
        self.near, self.roughest, self.roughest_5 = float(near), float(roughest), float(roughest_5)
        self.n_pair, self.n_radial, self.l_max = int(n_pair), int(n_radial), int(l_max)
        self.by_number = sorted(range(len(self.species)), key=lambda k: atomic_numbers[self.species[k]])
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)
        self.register_buffer(
            "radial", torch.as_tensor(_orthonormal(self.inner / self.cutoff, self.n_pair)), persistent=False
        )
        if near:
            self.register_buffer(
                "near_radial", torch.as_tensor(_orthonormal(self.inner / self.near, self.n_radial)), persistent=False
            )
        self.many = torch.nn.ModuleList(
            DirectionMeans(n, len(self.species), self.n_radial, self.l_max, _roughness, limit)
            for n, limit in ((3, self.roughest), (4, self.roughest_5))
            if near and limit
        )
        self.register_buffer("pairs", torch.triu_indices(*(len(self.species) * self.n_radial,) * 2), persistent=False)
        self.register_buffer("weights", self._weights(), persistent=False)
        self.n_features = len(self.weights)

    def feature_weights(self):
        return self.weights

    def feature_groups(self):
        """By the number and species of the neighbours, divided at ``PARTS`` by the sums of n^2 and of l^2."""
        own = np.arange(len(self.species))
        radial = np.repeat(own, self.n_radial)[self.pairs.numpy()]
        members = [
            np.repeat(own, self.n_pair)[:, None],
            np.tile(radial.T, (self.l_max + 1, 1)),
            *(means.members for means in self.many),
        ]
        groups, n_groups = [], 0
        for squares, kinds in zip(self._squares(), members):
            kind = np.unique(kinds, axis=0, return_inverse=True)[1].ravel()
            parts = np.zeros_like(kind)
            for k in range(kind.max() + 1):
                for square in squares[:, kind == k]:
                    parts[kind == k] *= len(PARTS) + 1
                    parts[kind == k] += np.searchsorted(np.unique(np.quantile(square, PARTS)), square)
            found = np.unique([kind, parts], axis=1, return_inverse=True)[1].ravel()
            groups.append(n_groups + found)
            n_groups += found.max() + 1
        return torch.as_tensor(np.concatenate(groups))

    def arguments(self):
        return dict(
            species=list(self.species),
            cutoff=self.cutoff,
            inner=self.inner,
            n_pair=self.n_pair,
            n_radial=self.n_radial,
            l_max=self.l_max,
            near=self.near,
            roughest=self.roughest,
            roughest_5=self.roughest_5,
        )

    def _squares(self):
        """list of arrays [2, F]: sums of n^2 and of l^2, of pairs, triples and what is beyond."""
        pair, radial = (np.tile(np.arange(n) ** 2, len(self.species)) for n in (self.n_pair, self.n_radial))
        triples = radial[self.pairs.numpy()].sum(axis=0)
        l = np.repeat(np.arange(self.l_max + 1), len(triples))
        return [
            np.stack([pair, 0 * pair]),
            np.stack([np.tile(triples, self.l_max + 1), l**2]),
            *(means.squares for means in self.many),
        ]

    def _weights(self):
        pairs, triples, *more = (torch.as_tensor(_roughness(*squares)) for squares in self._squares())
        return torch.cat(
            [
                torch.cat([pairs, triples]) ** (-STEEPNESS / 2),
                *(SHARES[means.n_densities] * rough ** (-STEEPNESS_MANY / 2) for means, rough in zip(self.many, more)),
            ]
        )

    def forward(self, system, edges):
        moments = self._moments(system, edges, self.cutoff, self.radial)
        features = [moments[:, 0].flatten(1)]
        some = moments[..., : self.n_radial].flatten(2)
        upper = self.pairs[0] * some.shape[2] + self.pairs[1]
        for l in range(self.l_max + 1):
            own = some[:, l * l : (l + 1) ** 2]
            features.append((own.transpose(1, 2) @ own).flatten(1).index_select(1, upper))
        if self.many:
            moments = self._moments(system, edges.closer_than(self.near), self.near, self.near_radial)
            features += [means(moments) for means in self.many]
        return Environment(torch.cat(features, dim=1), self.species_of_number[system.numbers][edges.atoms])

    def _moments(self, system, edges, cutoff, radial):
        """A [C, (l_max + 1)^2, species, n] with the n functions ``radial`` [n, n], which end at ``cutoff``, Å."""
        x, angular = self._polar(edges.vec.T.contiguous(), cutoff, self.l_max)
        table = torch.cat([x[None], angular])
        kind = self.species_of_number[system.numbers].index_select(0, edges.neighbor)
        padded, _, blocks = pad(edges.center, kind, table, edges.n_centers, self.by_number)
        moments, _ = ChebyshevMoments.apply(padded, blocks, len(radial))
        return moments @ radial.to(moments)

    def _polar(self, vec, cutoff, l_max):
        """(variable of the polynomials [E], Y_lm that fade to the cutoff [(l_max + 1)^2, E]) of vectors [3, E]."""
        rho = (vec * vec).sum(dim=0).sqrt() / cutoff
        fade = (1 - rho**2).clamp(min=0) ** 2
        return _variable(rho, self.inner / cutoff), fade * harmonics(vec / (rho * cutoff), l_max)

    def summed_changes(self, system, edges, moves):
        return sum(self._summed_changes(system, part, moves[:, rows]) for rows, part in edges.chunks(CENTRES))

    def _summed_changes(self, system, edges, moves):
        species = self.species_of_number[system.numbers][edges.atoms]
        _, pairs = self._moved_moments(system, edges, moves, self.cutoff, self.radial, 0)
        radial = self.radial[: self.n_radial, : self.n_radial]
        sets = [self._moved_moments(system, edges, moves, self.cutoff, radial, self.l_max)]
        if self.many:
            l_max, near = max(means.l_max for means in self.many), edges.distances < self.near
            sets.append(
                self._moved_moments(
                    system, edges.closer_than(self.near), moves[:, near], self.near, self.near_radial, l_max
                )
            )
        changes = []
        for k in range(len(self.species)):
            own = species == k
            (moments, moved), *near = ([array[own] for array in each] for each in sets)
            changes.append(
                torch.cat(
                    [
                        pairs[own].sum(dim=0).flatten(1),
                        self._changes_of_triples(moments, moved),
                        *(means.summed_changes(*near[0]) for means in self.many),
                    ],
                    dim=1,
                )
            )
        return torch.stack(changes, dim=1)

    def _changes_of_triples(self, moments, moved):
        """[T, F] from A [C, (l_max + 1)^2, species, n] and its changes along T moves, summed over the centres."""
        moments, moved, changes = moments.flatten(2), moved.flatten(3), []
        for l in range(self.l_max + 1):
            m = slice(l * l, (l + 1) ** 2)
            change = torch.einsum("ctma,cmb->tab", moved[:, :, m], moments[:, m])
            changes.append((change + change.transpose(1, 2))[:, self.pairs[0], self.pairs[1]])
        return torch.cat(changes, dim=1)

    def _moved_moments(self, system, edges, moves, cutoff, radial, l_max):
        """(A [C, (l_max + 1)^2, species, n], its changes [C, T, ...] along T moves of the edges, [T, E, 3])."""

        def functions(vec):
            x, angular = self._polar(vec, cutoff, l_max)
            series = [torch.ones_like(x), x]
            for _ in range(2, len(radial)):
                series.append(2 * x * series[-1] - series[-2])
            return (angular[:, None] * (radial.T.to(x) @ torch.stack(series[: len(radial)]))).flatten(0, 1)

        vec = edges.vec.detach().T.contiguous().requires_grad_(True)
        with torch.enable_grad():
            values = functions(vec)
            slopes = changes_along(torch.eye(3).to(vec)[:, :, None].expand(3, *vec.shape), values, vec)
        kind = self.species_of_number[system.numbers].index_select(0, edges.neighbor)
        table = torch.cat([values.detach(), *slopes, *moves.unbind(2)])
        padded, _, blocks = pad(edges.center, kind, table, edges.n_centers, self.by_number)
        sizes = len(values), 3 * len(values), 3 * len(moves)
        values, slopes, moves = padded.split(sizes, dim=1)
        slopes, moves = (array.unflatten(1, (3, -1)) for array in (slopes, moves))

        def by_function(columns):
            return torch.stack(columns, dim=-1).unflatten(-2, (-1, len(radial))).transpose(-1, -2)

        return (
            by_function([values[..., block].sum(dim=2) for block in blocks]),
            by_function(
                [
                    moves[..., block].transpose(1, 2).flatten(2) @ slopes[..., block].transpose(2, 3).flatten(1, 2)
                    for block in blocks
                ]
            ),
        )


def _roughness(n_squares, l_squares):
    return 1 + n_squares + ANGULAR * l_squares


def _variable(rho, inner):
    """From 1 at ``inner`` to -1 at ρ = 1."""
    return 2 * (1 - rho) * (1 + inner) / ((1 + rho) * (1 - inner)) - 1


def _orthonormal(inner, n):
    """Chebyshev coefficients [n, n] in ``_variable``, a column per function, orthonormal over inner < ρ < 1."""
    rho = inner + (1 - inner) * (np.arange(2000) + 0.5) / 2000
    values = np.polynomial.chebyshev.chebvander(_variable(rho, inner), n - 1) * ((1 - rho**2) ** 2)[:, None]
    triangle = np.linalg.qr(values / np.sqrt(len(rho)), mode="r")
    return np.linalg.inv(triangle) * np.sign(np.diag(triangle))
