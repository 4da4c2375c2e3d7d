"""Moments of the structures of a data set, which training computes once (see ase_mlelec.descriptors.fixed)."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec.descriptors import Environment
from ase_mlelec.descriptors.fixed import Law, Slots, moments_of
from ase_mlelec.edges import Edges
from ase_mlelec.system import System

MOST_BYTES = 2**30  # of moments that are kept between steps; beyond it every step computes them


class Part(NamedTuple):
    """Centers of one species of a batch, with their moments and the present coefficients of the series."""

    descriptor: Any
    k: int
    slots: Slots
    law: Law
    moments: Tensor
    coefficients: Tensor

    def environment(self, moments: Tensor) -> Environment:
        return self.descriptor.of_moments(moments, self.coefficients, self.slots.present, self.k)


class FixedStructures:
    """Neighbors of all atoms of some structures, and the moments of the series of one descriptor.

    Parameters
    ----------
    descriptor : DeepPotSE
    systems : list of System
        Single structures.
    all_edges : iterable of Edges or None
        Edges of each structure; None for a structure that is left out, with all batches that contain it.
    """

    def __init__(self, descriptor: Any, systems: Sequence[System], all_edges: Iterator[Edges | None]) -> None:
        self.descriptor = descriptor
        self.counts = [len(system.positions) for system in systems]
        self.slots: list = []
        self.shortest = descriptor.cutoff
        for system, edges in zip(systems, all_edges):
            if edges is None or (len(edges.center) and edges.shortest < 0.5 * descriptor.closest()):
                self.slots.append(None)
                continue
            self.shortest = min(self.shortest, edges.shortest)
            self.slots.append(self._slots(system, edges))
        self._kept: dict = {}

    def _slots(self, system, edges):
        species = self.descriptor.species_of_number[system.numbers]
        kinds, n = species[edges.neighbor], len(self.descriptor.species)
        return [Slots.of(edges, (species == k).nonzero()[:, 0], kinds, n, self.descriptor.cutoff) for k in range(n)]

    def parts(self, indices: Sequence[int], chosen: Sequence[int]) -> list | None:
        """Parts of the structures ``indices`` for the ``chosen`` species of the center; None where there is no series."""
        if any(self.slots[i] is None for i in indices):
            return None
        descriptor, found = self.descriptor, []
        series = descriptor.embedding.series(*descriptor.range_of_s(self.shortest))
        if series is None:
            return None
        coefficients, variable = series
        starts = torch.tensor([0, *(self.counts[i] for i in indices)]).cumsum(0).tolist()
        for k in chosen:
            law = descriptor.law(k, variable, coefficients.shape[2])
            having = [(i, start) for i, start in zip(indices, starts) if len(self.slots[i][k].atoms)]
            if having:
                slots = Slots.join([self.slots[i][k] for i, _ in having], [s for _, s in having], descriptor.cutoff)
                moments = [self._moments(int(i), k, law) for i, _ in having]
                found.append(Part(descriptor, k, slots, law, torch.cat(moments), coefficients))
        return found

    def _moments(self, i, k, law):
        """Moments of a structure, from a former step where the law is the same."""
        kept = self._kept.get((i, k))
        if kept is not None and kept[0] == law:
            return kept[1]
        with torch.no_grad():
            moments = moments_of(self.slots[i][k], law)
        if moments[:1].nbytes * sum(self.counts) <= MOST_BYTES:
            self._kept[i, k] = law, moments
        return moments
