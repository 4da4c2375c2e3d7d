"""What protects a model outside of its training data: a repulsive core, and the range of what it has seen.

Both are parts of the model file.  The core keeps atoms from falling into each other where a net or a polynomial has
never seen them so close, or so many; the range tells which structures are unlike those of the training.
"""

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii

from ase_mlelec.descriptors.base import species_table
from ase_mlelec.edges import Edges
from ase_mlelec.physics.repulsion import zbl
from ase_mlelec.system import System

OUTER, INNER = 0.95, 0.65  # of the shortest distance in the training data: where the core begins, and is whole
UNSEEN = 0.7  # of the sum of the covalent radii: the outer radius of pairs that are never close
REACH, FADE = 1.5, 0.6  # of that sum: where repulsion ends that tells crowded atoms, and of that: where it fades
COMPONENTS = 16  # principal components of the features whose ranges are kept
SAMPLES = 1500  # environments from which they are computed
PER_COMPONENT = 4  # structures for each component that is watched
MARGIN, FEWEST = 6.0, 8.0  # ranges of n structures are wider by MARGIN/n + (FEWEST/n)^4: few do not show extremes
LEAST = 0.02  # of the size of a number, its half range at least


class RepulsiveCore(torch.nn.Module):
    """Universal repulsion V of nuclei (see physics.repulsion), into which a model's own energy fades where atoms are
    closer, or more crowded, than in the training data.

        E_i = b_i + (1 - s_i) [g_i (e_i - b_i) + 1/2 sum_j w(r_ij) V(r_ij)] + s_i U_i
        g_i = product over j of (1 - w(r_ij)),   U_i = 1/2 sum_j W(r_ij) V(r_ij)

    w goes from 1 at ``inner`` to 0 at ``outer``, below the shortest distance of the two species; W from 1 to 0 at
    ``reach``, beyond the first neighbours; s from 0 where U_i is ``crowded``, more than any atom of the species has
    in the training, to 1 at twice that.  All with two smooth derivatives.  b is the model's mean energy of an atom of
    the species.  Energies of what is like the training data are not changed at all.

    species : sequence of chemical symbols
    inner, outer, reach : [species, species], Å, symmetric
    crowded : [species], eV; None: s is 0

    Raises ValueError for numbers that are not positive, or not in this order.
    """

    def __init__(self, species, inner, outer, reach, crowded=None):
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
        if crowded is not None and not (len(self.crowded) == n and all(0 < u < np.inf for u in self.crowded)):
            raise ValueError(f"core: got the energies {self.crowded}, need one above 0 for each of {n} species")
        for name, table in (("inner", inner), ("outer", outer), ("reach", reach)):
            self.register_buffer(name, torch.as_tensor((table + table.T) / 2), persistent=False)
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
    def below(cls, species, shortest, crowded=None):
        """The core below distances that are known.

        shortest : dict of float, Å, by (symbol, symbol); a pair that is missing has 0.7 of the sum of the covalent
            radii as outer radius
        """
        radii = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in species])
        sums = radii[:, None] + radii
        outer = UNSEEN * sums
        for (a, b), distance in shortest.items():
            i, j = species.index(a), species.index(b)
            outer[i, j] = outer[j, i] = OUTER * distance
        return cls(
            species,
            *(np.round(table, 4) for table in (outer * INNER / OUTER, outer, np.maximum(REACH * sums, outer))),
            crowded,
        )

    def arguments(self):
        return {
            "species": list(self.species),
            "crowded": self.crowded,
            **{name: getattr(self, name).tolist() for name in ("inner", "outer", "reach")},
        }

    def pairs(self, system, edges):
        """(centre [n], w [n], W [n], V [n] eV) of the pairs within reach; functions of ``edges.vec``."""
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

    def forward(self, energies, reference, system, edges):
        """Atomic energies [C], eV, with the core.

        energies : Tensor [C], eV, the model's own; reference : Tensor [species], eV, b
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
        # products of 1 - w by centre: there are a few close neighbours at most, and w = 1 has no logarithm
        keep = torch.ones_like(energies).scatter_reduce(0, center, 1 - close, "prod")
        own = keep * (energies - base) + zero.index_add(0, center, close * repulsion / 2)
        if self.crowded is None:
            return base + own
        share = _step(crowd / limits - 1)
        return base + (1 - share) * own + share * crowd

    @torch.no_grad()
    def crowding(self, system, edges):
        """Tensor [C], U of every centre, eV."""
        center, _, near, repulsion = self.pairs(system, edges)
        return torch.zeros(edges.n_centers).to(repulsion).index_add(0, center, near * repulsion / 2)


def _step(u):
    """0 below 0, 1 above 1, 10 u^3 - 15 u^4 + 6 u^5 between."""
    u = u.clamp(0, 1)
    return u**3 * (10 - 15 * u + 6 * u**2)


class TrainingRange(torch.nn.Module):
    """What a descriptor has seen in the training: ranges of the number of neighbours and of the features.

    The features of every species are seen along their first principal components in the training data.  Kept are the
    ranges of atoms and, narrower, those of means over the atoms of a structure, which tell phases and densities apart.

    species : sequence of chemical symbols; n_features : F; n_components : K

    Every measure is 1 at the edge of the training data and 0 in their middle.

    Raises ValueError for numbers that are not positive.
    """

    def __init__(self, species, n_features, n_components=COMPONENTS):
        super().__init__()
        self.species, self.n_features = tuple(species), int(n_features)
        self.n_components = int(min(n_components, n_features))
        if self.n_components < 1:
            raise ValueError(f"ranges: got {n_features} features and {n_components} components, need at least one")
        n_species = len(self.species)
        self.register_buffer("mean", torch.zeros(n_species, self.n_features))
        self.register_buffer("axes", torch.zeros(n_species, self.n_features, self.n_components))
        for name, size in (("atoms", self.n_components), ("structures", self.n_components), ("neighbors", 1)):
            self.register_buffer(f"{name}_middle", torch.zeros(n_species, size))
            self.register_buffer(f"{name}_inverse", torch.zeros(n_species, size))

    def arguments(self):
        return {"species": list(self.species), "n_features": self.n_features, "n_components": self.n_components}

    @torch.no_grad()
    def project(self, features, species):
        """Tensor [C, K]: features [C, F] of centres along the components of their species [C]."""
        if len(self.species) == 1:
            return (features.to(self.mean) - self.mean[0]) @ self.axes[0]
        along = self.mean.new_zeros(len(features), self.n_components)
        for k in range(len(self.species)):
            own = (species == k).nonzero()[:, 0]
            along[own] = (features[own].to(self.mean) - self.mean[k]) @ self.axes[k]
        return along

    @torch.no_grad()
    def atoms(self, along, species):
        """Tensor [C], the measure of the features of every centre.

        along : Tensor [C, K], what ``project`` returns; species : Tensor [C]
        """
        return self._measure("atoms", along, species)

    @torch.no_grad()
    def neighbors(self, counts, species):
        """Tensor [C], the measure of the number of neighbours ``counts`` [C] of every centre."""
        return self._measure("neighbors", counts.to(self.mean)[:, None], species)

    @torch.no_grad()
    def structures(self, along, species, batch, n_systems):
        """Tensor [B], the measure of the means over the centres of each species of every structure.

        batch : Tensor [C], the structure of each centre
        """
        n_species = len(self.species)
        place = batch * n_species + species
        number = torch.bincount(place, minlength=n_systems * n_species)
        total = along.new_zeros(n_systems * n_species, along.shape[1]).index_add(0, place, along)
        found = self._measure(
            "structures",
            total / number[:, None].clamp(min=1),
            torch.arange(n_species, device=batch.device).repeat(n_systems),
        )
        return torch.where(number > 0, found, 0).reshape(n_systems, n_species).amax(dim=1)

    def _measure(self, name, values, species):
        middle, inverse = (getattr(self, f"{name}_{what}") for what in ("middle", "inverse"))
        if len(self.species) > 1:
            middle, inverse = middle[species], inverse[species]
        return ((values - middle) * inverse).abs().amax(dim=1)

    @torch.no_grad()
    def fit(self, samples):
        """Set the ranges from the structures of the training; returns self.

        samples : list of (features [N, F], species [N], numbers of neighbours [N]) of one structure each
        """
        n = max(len(samples), 1)
        wide = MARGIN / n + (FEWEST / n) ** 4
        for k in range(len(self.species)):
            own = [(x[s == k].double(), n[s == k].double()) for x, s, n in samples if bool((s == k).any())]
            if not own:
                continue
            every, counts = torch.cat([x for x, _ in own]), torch.cat([n for _, n in own])
            mean, spread = every.mean(dim=0), every.std(dim=0, correction=0)
            inverse = 1 / (spread + 0.1 * spread.mean() + 1e-12)  # what hardly varies must not be blown up
            chosen = (every[:: max(1, len(every) // SAMPLES)] - mean) * inverse
            axes = torch.linalg.svd(chosen, full_matrices=False)[2][: self.n_components].T
            axes = axes * axes.gather(0, axes.abs().argmax(dim=0)[None]).sign()  # one of the two directions
            watched = min(axes.shape[1], max(1, len(own) // PER_COMPONENT))
            self.mean[k], self.axes[k, :, :watched] = mean, axes[:, :watched] * inverse[:, None]
            size = (spread * inverse).norm()
            along = (every - mean) @ self.axes[k].double()
            means = torch.stack([(x - mean).mean(dim=0) for x, _ in own]) @ self.axes[k].double()
            for name, values, floor in (
                ("atoms", along, LEAST * size),
                ("structures", means, LEAST * size),
                ("neighbors", counts[:, None], LEAST * counts.mean()),
            ):
                low, high = values.amin(dim=0), values.amax(dim=0)
                getattr(self, f"{name}_middle")[k] = (low + high) / 2
                half = ((high - low) / 2 * (1 + wide)).clamp(min=max(float(floor), 1e-12))
                # ranges along more directions than the data fill tell nothing: what is like them would be beyond
                known = torch.arange(len(half)) < max(1, len(own) // PER_COMPONENT)
                getattr(self, f"{name}_inverse")[k] = known / half
        return self


def shortest_distances(structures, species, cutoff=6.0):
    """dict of float, Å, by (symbol, symbol) in the order of ``species``: the shortest distance of each pair.

    structures : iterable of ase.Atoms
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
    return {
        (a, b): float(shortest[i, j])
        for i, a in enumerate(species)
        for j, b in enumerate(species)
        if i <= j and bool(shortest[i, j].isfinite())
    }
