"""Shortest distances of a data set."""

from collections.abc import Iterable, Sequence

import torch
from ase import Atoms

from ase_mlelec.descriptors.base import species_table
from ase_mlelec.edges import Edges
from ase_mlelec.system import System


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
    return {
        (a, b): float(shortest[i, j])
        for i, a in enumerate(species)
        for j, b in enumerate(species)
        if i <= j and bool(shortest[i, j].isfinite())
    }
