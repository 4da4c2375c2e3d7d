"""A repulsive core: it keeps atoms from falling into each other where a model has never seen them so close, or so many."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import ArrayLike
from torch import Tensor

from ase_mlelec.descriptors.base import species_table
from ase_mlelec.edges import Edges
from ase_mlelec.physics.repulsion import zbl
from ase_mlelec.system import System

OUTER, INNER = 0.95, 0.65  # of the shortest distance in the training data: where the core begins, and is whole
UNSEEN = 0.7  # of the sum of the covalent radii: the outer radius of pairs that are never close
REACH, FADE = 1.5, 0.6  # of that sum: where repulsion ends that tells crowded atoms, and of that: where it fades


class RepulsiveCore(torch.nn.Module):
    """Universal repulsion V of nuclei (see physics.repulsion), into which a model's own energy fades where atoms are
    closer, or more crowded, than in the training data.

        E_i = b_i + (1 - s_i) [g_i (e_i - b_i) + 1/2 sum_j w(r_ij) V(r_ij)] + s_i U_i
        g_i = product over j of (1 - w(r_ij)),   U_i = 1/2 sum_j W(r_ij) V(r_ij)

    w goes from 1 at ``inner`` to 0 at ``outer``, below the shortest distance of the two species; W from 1 to 0 at
    ``reach``, beyond the first neighbors; s from 0 where U_i is ``crowded``, more than any atom of the species has
    in the training, to 1 at twice that.  All with two smooth derivatives.  b is the model's mean energy of an atom of
    the species.  Energies of what is like the training data are not changed at all.

    Parameters
    ----------
    species : sequence of chemical symbols
    inner, outer, reach : array [species, species], Å, symmetric
    crowded : sequence [species], eV
        None: s is 0.

    Raises
    ------
    ValueError
        For numbers that are not positive, or not in this order.
    """

    inner: Tensor
    outer: Tensor
    reach: Tensor
    limits: Tensor
    species_of_number: Tensor

    def __init__(
        self,
        species: Sequence[str],
        *,
        inner: ArrayLike,
        outer: ArrayLike,
        reach: ArrayLike,
        crowded: Sequence[float] | None = None,
    ):
        super().__init__()
        self.species, self.crowded = tuple(species), None if crowded is None else [float(u) for u in crowded]
        inner, outer, reach = (np.asarray(table, dtype=float) for table in (inner, outer, reach))
        n = len(self.species)
        if not (
            inner.shape == outer.shape == reach.shape == (n, n)
            and ((0 < inner) & (inner < outer) & (outer <= reach) & (reach < 10)).all()
        ):
            raise ValueError(
                f"core: got distances of shapes {inner.shape}, {outer.shape} and {reach.shape}, need 0 < "
                f"inner < outer <= reach < 10 Å of {n} species"
            )
        if self.crowded is not None and not (len(self.crowded) == n and all(0 < u < np.inf for u in self.crowded)):
            raise ValueError(f"core: got the energies {self.crowded}, need one above 0 for each of {n} species")
        self.register_buffer("inner", torch.as_tensor((inner + inner.T) / 2), persistent=False)
        self.register_buffer("outer", torch.as_tensor((outer + outer.T) / 2), persistent=False)
        self.register_buffer("reach", torch.as_tensor((reach + reach.T) / 2), persistent=False)
        self.register_buffer(
            "limits", torch.as_tensor(self.crowded or [np.inf] * n, dtype=torch.float64), persistent=False
        )
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)
        # distances from the outer radius on, and the strongest repulsion of any two species there; it falls with r
        r = np.arange(float(outer.max()), float(reach.max()) + 0.02, 0.02)
        numbers = torch.tensor([atomic_numbers[symbol] for symbol in self.species])
        self.steepest = np.stack([r, zbl(torch.as_tensor(r)[:, None, None], numbers[:, None], numbers).amax((1, 2))], 1)
        # no atom is close or crowded where the shortest of all distances is longer
        self.longest = float(outer.max()) if crowded is None else float(reach.max())

    @classmethod
    def below(
        cls, species: Sequence[str], shortest: Mapping[tuple[str, str], float], crowded: Sequence[float] | None = None
    ) -> "RepulsiveCore":
        """Make the core below distances that are known.

        Parameters
        ----------
        species : sequence of chemical symbols
        shortest : dict of float, Å, by (symbol, symbol)
            A pair that is missing has 0.7 of the sum of the covalent radii as outer radius.
        crowded : sequence [species], eV
        """
        radii = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in species])
        sums = radii[:, None] + radii
        outer = UNSEEN * sums
        for (a, b), distance in shortest.items():
            i, j = species.index(a), species.index(b)
            outer[i, j] = outer[j, i] = OUTER * distance
        return cls(
            species,
            inner=np.round(outer * INNER / OUTER, 4),
            outer=np.round(outer, 4),
            reach=np.round(np.maximum(REACH * sums, outer), 4),
            crowded=crowded,
        )

    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, for the model file."""
        return {
            "species": list(self.species),
            "crowded": self.crowded,
            "inner": self.inner.tolist(),
            "outer": self.outer.tolist(),
            "reach": self.reach.tolist(),
        }

    def pairs(self, system: System, edges: Edges) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(center [n], w [n], W [n], V [n] eV) of the pairs within reach; functions of ``edges.vec``."""
        with torch.no_grad():
            distances = edges.distances
            rows = (distances < self.longest).nonzero()[:, 0]
            kinds = [
                self.species_of_number[system.numbers[atoms]]
                for atoms in (edges.atoms[edges.center[rows]], edges.neighbor[rows])
            ]
            keep = distances[rows] < (self.outer if self.crowded is None else self.reach)[kinds[0], kinds[1]]
            rows, kinds = rows[keep], [kind[keep] for kind in kinds]
        r = edges.vec[rows].norm(dim=1)
        inner, outer, reach = (table[kinds[0], kinds[1]].to(r.dtype) for table in (self.inner, self.outer, self.reach))
        numbers = [system.numbers[atoms] for atoms in (edges.atoms[edges.center[rows]], edges.neighbor[rows])]
        return (
            edges.center[rows],
            1 - _step((r - inner) / (outer - inner)),
            1 - _step((r / reach - FADE) / (1 - FADE)),
            zbl(r, *numbers),
        )

    def _is_far_from_crowded(self, edges):
        """Whether no atom can be close or crowded: even with all its pairs within reach as short as the shortest one.

        It spares what is like the training data, most of a run, the repulsion pair by pair.
        """
        if self.crowded is None or edges.shortest <= float(self.steepest[0, 0]):
            return False
        with torch.no_grad():
            center = edges.center.index_select(0, (edges.distances < self.longest).nonzero()[:, 0])
            most = int(torch.bincount(center).max()) if len(center) else 0
        place = int(np.searchsorted(self.steepest[:, 0], edges.shortest, side="right")) - 1  # the next shorter one
        return most / 2 * self.steepest[place, 1] < 0.99 * min(self.crowded)

    def forward(self, energies: Tensor, reference: Tensor, system: System, edges: Edges) -> Tensor:
        """Put the core into the atomic energies of a model.

        Parameters
        ----------
        energies : Tensor [C], eV
        reference : Tensor [species], eV, b
        system : System
        edges : Edges

        Returns
        -------
        Tensor [C], eV
        """
        if edges.shortest > self.longest or self._is_far_from_crowded(edges):
            return energies
        center, close, near, repulsion = self.pairs(system, edges)
        if not len(center):
            return energies
        species = self.species_of_number[system.numbers[edges.atoms]]
        zero = torch.zeros_like(energies)
        crowd = zero.index_add(0, center, near * repulsion / 2)
        limits = self.limits.to(energies)[species]
        if not bool((close > 0).any()) and not bool((crowd > limits).any()):
            return energies
        base = reference.to(energies)[species]
        # products of 1 - w by center: there are a few close neighbors at most, and w = 1 has no logarithm
        keep = torch.ones_like(energies).scatter_reduce(0, center, 1 - close, "prod")
        own = keep * (energies - base) + zero.index_add(0, center, close * repulsion / 2)
        if self.crowded is None:
            return base + own
        share = _step(crowd / limits - 1)
        return base + (1 - share) * own + share * crowd

    @torch.no_grad()
    def crowding(self, system: System, edges: Edges) -> Tensor:
        """U of every center: Tensor [C], eV."""
        center, _, near, repulsion = self.pairs(system, edges)
        return torch.zeros(edges.n_centers).to(repulsion).index_add(0, center, near * repulsion / 2)


def _step(u):
    """0 below 0, 1 above 1, 10 u^3 - 15 u^4 + 6 u^5 between."""
    u = u.clamp(0, 1)
    return u**3 * (10 - 15 * u + 6 * u**2)
