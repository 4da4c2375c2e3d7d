"""Repulsive core, which keeps atoms apart where they are closer, or more crowded, than in the training data."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import ArrayLike
from torch import Tensor

from ase_mlelec.descriptors.base import species_table
from ase_mlelec.edges import Edges
from ase_mlelec.physics.repulsion import zbl
from ase_mlelec.system import System

OUTER, INNER = 0.95, 0.65  # where the core begins and is complete, in units of the shortest distance in the data
UNSEEN = 0.7  # outer radius of pairs that are never close, in units of the sum of the covalent radii
REACH, FADE = 1.5, 0.6  # range of the crowding, in units of that sum; start of its fading, in units of the range


class RepulsiveCore(torch.nn.Module):
    """Repulsive core: atomic energies of a model fade into the universal repulsion V of nuclei.

    They do so where atoms are closer, or more crowded, than in the training data (V: see physics.repulsion).

        E_i = b_i + (1 - s_i) [g_i (e_i - b_i) + 1/2 sum_j w(r_ij) V(r_ij)] + s_i U_i
        g_i = product over j of (1 - w(r_ij)),   U_i = 1/2 sum_j W(r_ij) V(r_ij)

    e_i is the atomic energy of the model, and b_i its mean energy of an atom of the species. w falls from 1 at ``inner``
    to 0 at ``outer``, which is below the shortest distance of the two species. W falls from 1 to 0 at ``reach``, beyond
    the first neighbors. s rises from 0, where U_i is ``crowded``, to 1 at twice this value; ``crowded`` is more than any
    U_i of the species in the training data. All these functions have two smooth derivatives. Energies of structures like
    the training data do not change at all.

    Parameters
    ----------
    species : sequence of chemical symbols
    inner, outer, reach : array [species, species], Å, symmetric
    crowded : sequence [species], eV
        With None, s is 0.

    Raises
    ------
    ValueError
        For radii that are not positive, or not in the order inner, outer, reach.
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
    ) -> None:
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
        for name, table in (("inner", inner), ("outer", outer), ("reach", reach)):
            self.register_buffer(name, torch.as_tensor((table + table.T) / 2), persistent=False)
        limits = torch.as_tensor(self.crowded or [np.inf] * n, dtype=torch.float64)
        self.register_buffer("limits", limits, persistent=False)
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)
        # table of the strongest repulsion of any two species beyond the outer radius; it falls with r
        r = np.arange(float(outer.max()), float(reach.max()) + 0.02, 0.02)
        numbers = torch.tensor([atomic_numbers[symbol] for symbol in self.species])
        self.steepest = np.stack([r, zbl(torch.as_tensor(r)[:, None, None], numbers[:, None], numbers).amax((1, 2))], 1)
        # if all distances are longer than this, no atom is close or crowded
        self.longest = float(outer.max()) if crowded is None else float(reach.max())

    @classmethod
    def below(
        cls, species: Sequence[str], shortest: Mapping[tuple[str, str], float], crowded: Sequence[float] | None = None
    ) -> "RepulsiveCore":
        """Make a core from the shortest distances in the training data.

        Parameters
        ----------
        species : sequence of chemical symbols
        shortest : dict of float, Å, by (symbol, symbol)
            Shortest distances. The outer radius of a missing pair is 0.7 times the sum of the covalent radii.
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
        tables = {name: getattr(self, name).tolist() for name in ("inner", "outer", "reach")}
        return {"species": list(self.species), "crowded": self.crowded, **tables}

    def pairs(self, system: System, edges: Edges) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(center [n], w [n], W [n], V [n] eV) of the pairs within reach; functions of ``edges.vec``."""
        with torch.no_grad():
            distances = edges.distances
            rows = (distances < self.longest).nonzero()[:, 0]
            numbers = system.numbers[torch.stack([edges.atoms[edges.center[rows]], edges.neighbor[rows]])]
            kinds = self.species_of_number[numbers]
            keep = distances[rows] < (self.outer if self.crowded is None else self.reach)[kinds[0], kinds[1]]
            rows, kinds, numbers = rows[keep], kinds[:, keep], numbers[:, keep]
        r = edges.vec[rows].norm(dim=1)
        inner, outer, reach = (table[kinds[0], kinds[1]].to(r.dtype) for table in (self.inner, self.outer, self.reach))
        close, near = 1 - _step((r - inner) / (outer - inner)), 1 - _step((r / reach - FADE) / (1 - FADE))
        return edges.center[rows], close, near, zbl(r, *numbers)

    def is_idle(self, edges: Edges) -> bool:
        """Whether it is seen at a glance that no energy of the centers of ``edges`` changes."""
        return edges.shortest > self.longest or self._is_far_from_crowded(edges)

    def _is_far_from_crowded(self, edges):
        """Whether no atom can be close or crowded, even if all its pairs were as short as the shortest pair.

        This cheap test spares most structures of a run the evaluation of the repulsion pair by pair.
        """
        if self.crowded is None or edges.shortest <= float(self.steepest[0, 0]):
            return False
        most = _most_within(self.longest, edges)
        place = (
            int(np.searchsorted(self.steepest[:, 0], edges.shortest, side="right")) - 1
        )  # next shorter one in the table
        return most / 2 * self.steepest[place, 1] < 0.99 * min(self.crowded)

    def forward(self, energies: Tensor, reference: Tensor, system: System, edges: Edges) -> Tensor:
        """Apply the core to the atomic energies of a model.

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
        if self.is_idle(edges):
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
        # products of 1 - w for every center; sums of logarithms would fail for w = 1
        keep = torch.ones_like(energies).scatter_reduce(0, center, 1 - close, "prod")
        own = keep * (energies - base) + zero.index_add(0, center, close * repulsion / 2)
        if self.crowded is None:
            return base + own
        share = _step(crowd / limits - 1)
        return base + (1 - share) * own + share * crowd

    @torch.no_grad()
    def crowding(self, system: System, edges: Edges) -> Tensor:
        """Crowding U [C], eV, of every center."""
        center, _, near, repulsion = self.pairs(system, edges)
        return torch.zeros(edges.n_centers).to(repulsion).index_add(0, center, near * repulsion / 2)


def _most_within(longest, edges):
    """Largest number of pairs of one center within ``longest``, Å."""
    vec, center = edges.vec.detach(), edges.center
    if vec.device.type == "cpu":  # by NumPy, whose calls take less time
        x, y, z = vec.numpy().T
        near = center.numpy()[x * x + y * y + z * z < longest**2]
        return int(np.bincount(near).max()) if len(near) else 0
    near = center.index_select(0, (edges.with_vec(vec).distances < longest).nonzero()[:, 0])
    return int(torch.bincount(near).max()) if len(near) else 0


def _step(u):
    """Smooth step: 0 for u < 0, 1 for u > 1, and 10 u^3 - 15 u^4 + 6 u^5 between."""
    u = u.clamp(0, 1)
    return u**3 * (10 - 15 * u + 6 * u**2)


def shortest_distances(
    structures: Iterable[Atoms], species: Sequence[str], cutoff: float = 6.0
) -> dict[tuple[str, str], float]:
    """Find the shortest distance of each pair of species.

    Parameters
    ----------
    structures : iterable of ase.Atoms
    species : sequence of chemical symbols
    cutoff : float, Å
        Pairs of species that are never closer than this are left out.

    Returns
    -------
    dict of float, Å, by (symbol, symbol) in the order of ``species``
    """
    table = species_table(species)
    shortest = torch.full((len(species),) * 2, torch.inf, dtype=torch.float64)
    for atoms in structures:
        system = System.from_atoms(atoms)
        edges = Edges.build(system, cutoff)
        kinds = table[system.numbers]
        place = kinds[edges.center] * len(species) + kinds[edges.neighbor]
        found = torch.full_like(shortest.flatten(), torch.inf).scatter_reduce(0, place, edges.distances, "amin")
        shortest = torch.minimum(shortest, found.reshape(shortest.shape))
    pairs = zip(
        combinations_with_replacement(species, 2), shortest[tuple(torch.triu_indices(*shortest.shape))].tolist()
    )
    return {pair: distance for pair, distance in pairs if distance < np.inf}
