"""Protect a trained model: shortest distances, repulsive core and range of what it was trained on."""

from functools import partial

import torch

from ase_mlelec.edges import Edges
from ase_mlelec.safety import RepulsiveCore, TrainingRange, shortest_distances
from ase_mlelec.system import System

ENERGIES = ("energy", "ldos")  # heads from which an energy follows
CHUNK = 256  # centers at a time
CROWDED = 1.5  # of the largest repulsion of an atom in the data: where it begins to replace a model
LEAST_CROWDED, FAR = 1.0, 1e9  # eV: less is no repulsion to speak of, and more than any


def protect(model, structures, support=(), *, hamiltonians=None, former=None, core: bool = True):
    """Give ``model`` the shortest distances of its training data, a repulsive core below them, and their ranges.

    Parameters
    ----------
    model : Model
        Changed in place; what it had before is replaced.
    structures : list of ase.Atoms
        Those that it is meant for.
    support : list of ase.Atoms that it was trained on beside
        Such as close pairs; they count for distances alone, and the core may change their energies.
    hamiltonians : list of ase.Atoms
        Those with a Hamiltonian; default ``structures``.
    former : dict of float, Å
        By "A-B": shortest distances of a training that this one went on from.
    core : bool
        False for none; models without an energy have none.

    Returns
    -------
    the model
    """
    hamiltonians = list(structures if hamiltonians is None else hamiltonians)
    every = [*structures, *support, *(hamiltonians if "hamiltonian" in model.heads else ())]
    shortest = shortest_distances(every, list(model.species))
    for pair, distance in (former or {}).items():
        pair = tuple(sorted(pair.split("-"), key=list(model.species).index))
        shortest[pair] = min(distance, shortest.get(pair, distance))
    model.metadata["shortest_distances_A"] = {f"{a}-{b}": round(distance, 4) for (a, b), distance in shortest.items()}
    if shortest:
        model.metadata["shortest_distance_A"] = min(shortest.values())  # what former versions read
    wanted = core and any(name in model.heads for name in ENERGIES)
    model.core = _core(model, shortest, structures) if wanted else None
    model.ranges = torch.nn.ModuleDict()
    for name, surroundings, images in _surroundings(model, structures, hamiltonians):
        samples = [surroundings(System.from_atoms(atoms, model.dtype)) for atoms in images]
        if samples:
            known = TrainingRange(model.species, samples[0][0].shape[1]).to(model.dtype)
            model.ranges[name] = known.fit(samples)
    return model


def _core(model, shortest, structures):
    """RepulsiveCore below what is in the structures; energies that are no sums over atoms cannot fade out."""
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
    """Iterator of (name, function of a System -> (features [N, F], species [N], neighbors [N]), structures)."""
    if "hamiltonian" in model.heads:
        yield "hamiltonian", partial(hamiltonian_surroundings, model.descriptor_of("hamiltonian")), hamiltonians
    if set(model.heads) != {"hamiltonian"}:
        for name in ("descriptor", "electronic"):
            if getattr(model, name) is not None:
                yield name, partial(atomic_surroundings, getattr(model, name)), structures


@torch.no_grad()
def atomic_surroundings(descriptor, system: System) -> tuple:
    """(features [N, F], species [N], numbers of neighbors [N]) of the atoms of a structure."""
    edges = Edges.build(system, descriptor.cutoff)
    parts = [descriptor(system, part) for _, part in edges.chunks(CHUNK)]
    return (
        torch.cat([part.features for part in parts]),
        torch.cat([part.species for part in parts]),
        torch.bincount(edges.center, minlength=edges.n_centers),
    )


@torch.no_grad()
def hamiltonian_surroundings(descriptor, system: System) -> tuple:
    """As ``atomic_surroundings``, in the frames of the layers; sizes of features that no turn of a layer changes."""
    edges = Edges.build(system, descriptor.environment)
    moments, species = descriptor.moments(system, edges, descriptor.frames(system))
    return (
        descriptor.sizes(descriptor.features(moments)),
        species,
        torch.bincount(edges.center, minlength=edges.n_centers),
    )
