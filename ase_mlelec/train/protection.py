"""Protection of a trained model: shortest distances, repulsive core and range of the training data."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from ase import Atoms

from ase_mlelec.descriptors import LayerMoments
from ase_mlelec.descriptors.base import Descriptor
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.safety import RepulsiveCore, TrainingRange, shortest_distances
from ase_mlelec.system import System

ENERGIES = ("energy", "ldos")  # heads from which an energy follows
CHUNK = 256  # centers at a time
CROWDED = 1.5  # repulsion begins to replace a model at this times the largest repulsion of an atom in the data
LEAST_CROWDED, FAR = 1.0, 1e9  # eV: less is no repulsion to speak of, and more than any


def protect(
    model: Model,
    structures: Sequence[Atoms],
    support: Sequence[Atoms] = (),
    *,
    hamiltonians: Sequence[Atoms] | None = None,
    former: Mapping[str, float] | None = None,
    core: bool = True,
    ranges: bool = True,
) -> Model:
    """Give ``model`` the shortest distances of its training data, a repulsive core below them, and a training range.

    Parameters
    ----------
    model : Model
        Changed in place; a former core and range are replaced.
    structures : list of ase.Atoms
        Training structures for the purpose of the model.
    support : list of ase.Atoms
        Further training structures, such as close pairs. They count for distances alone, and the core may change their
        energies.
    hamiltonians : list of ase.Atoms
        Training structures with a Hamiltonian; default ``structures``.
    former : dict of float, Å
        Shortest distances, by "A-B", of the training from which this training started.
    core : bool
        Whether to add a core; models without an energy have none.
    ranges : bool
        Whether to add ranges, for which descriptors are evaluated.

    Returns
    -------
    the model
    """
    hamiltonians = list(structures if hamiltonians is None else hamiltonians)
    every = [*structures, *support, *(hamiltonians if "hamiltonian" in model.heads else ())]
    shortest = shortest_distances(every, list(model.species))
    pair: Any  # "A-B", then its symbols in order
    for pair, distance in (former or {}).items():
        pair = tuple(sorted(pair.split("-"), key=list(model.species).index))
        shortest[pair] = min(distance, shortest.get(pair, distance))
    model.metadata["shortest_distances_A"] = {f"{a}-{b}": round(distance, 4) for (a, b), distance in shortest.items()}
    if shortest:
        model.metadata["shortest_distance_A"] = min(shortest.values())  # read by former versions
    wanted = core and any(name in model.heads for name in ENERGIES)
    model.core = _core(model, shortest, structures) if wanted else None
    model.ranges = torch.nn.ModuleDict()
    if not ranges:
        return model
    for name, surroundings, images in _surroundings(model, structures, hamiltonians):
        samples = [surroundings(System.from_atoms(atoms, model.dtype)) for atoms in images]
        if samples:
            known = TrainingRange(model.species, samples[0][0].shape[1]).to(model.dtype)
            model.ranges[name] = known.fit(samples)
    return model


def _core(model, shortest, structures):
    """RepulsiveCore for the structures; only energies that are sums over atoms can fade out."""
    species = list(model.species)
    if "energy" not in model.heads:
        return RepulsiveCore.below(species, shortest)
    core = RepulsiveCore.below(species, shortest, [FAR] * len(species))
    most = torch.full((len(species),), LEAST_CROWDED, dtype=torch.float64)
    for atoms in structures:
        system = System.from_atoms(atoms)
        edges = Edges.build(system, core.longest)
        most = most.scatter_reduce(0, core.species_of_number[system.numbers], core.crowding(system, edges), "amax")
    return RepulsiveCore.below(species, shortest, [round(CROWDED * u, 3) for u in most.tolist()])


def _surroundings(model, structures, hamiltonians):
    """Iterate over the ranges: (name, function from a System to (features, species, numbers of neighbors), structures)."""
    if "hamiltonian" in model.heads:
        yield "hamiltonian", partial(hamiltonian_surroundings, model.descriptor_of("hamiltonian")), hamiltonians
    if set(model.heads) != {"hamiltonian"}:
        for name in ("descriptor", "electronic"):
            if getattr(model, name) is not None:
                yield name, partial(atomic_surroundings, getattr(model, name)), structures


@torch.no_grad()
def atomic_surroundings(descriptor: Descriptor, system: System) -> tuple:
    """(features [N, F], species [N], numbers of neighbors [N]) of the atoms of a structure."""
    edges = Edges.build(system, descriptor.cutoff)
    parts = [descriptor(system, part) for _, part in edges.chunks(CHUNK)]
    return (
        torch.cat([part.features for part in parts]),
        torch.cat([part.species for part in parts]),
        torch.bincount(edges.center, minlength=edges.n_centers),
    )


@torch.no_grad()
def hamiltonian_surroundings(descriptor: LayerMoments, system: System) -> tuple:
    """As ``atomic_surroundings``, for layer moments, with features that do not depend on the twist of the layers."""
    edges = Edges.build(system, descriptor.environment)
    moments, species = descriptor.moments(system, edges, descriptor.frames(system))
    return (
        descriptor.sizes(descriptor.features(moments)),
        species,
        torch.bincount(edges.center, minlength=edges.n_centers),
    )
