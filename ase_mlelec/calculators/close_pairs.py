"""Pairs of atoms closer than any pair in the training data.

The net sees them at a larger distance, and a repulsive core pushes them apart.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ase_mlelec.calculators.potential import potential_results
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.safety import RepulsiveCore
from ase_mlelec.system import System


def close_pairs(core: RepulsiveCore | None, edges: Edges) -> Edges | None:
    """Return the pairs that are closer than any pair in the training data, or None."""
    near = None if core is None or edges.shortest > core.longest else edges.closer_than(core.longest)
    return near if near is not None and len(near.center) else None


def held_apart(system: System, pairs: Edges, core: RepulsiveCore) -> Tensor:
    """Move close pairs apart, to distances at which the net knows the LDOS.

    A pair at r, below the outer radius d of the core, is moved to d (1 - u + 4 u^3 - 5 u^4 + 1.8 u^5) with u = 1 - r/d.
    This distance has two smooth derivatives at d and is never below 0.74 d.

    Returns
    -------
    Tensor [N, 3], Å
        Positions.
    """
    kinds = [core.species_of_number[system.numbers[atoms]] for atoms in (pairs.center, pairs.neighbor)]
    outer = core.outer[kinds[0], kinds[1]].double()
    vec = (
        system.positions[pairs.neighbor] + pairs.shift.to(system.cell) @ system.cell[0] - system.positions[pairs.center]
    )
    r = vec.norm(dim=1)
    u = (1 - r / outer).clamp(min=0)
    push = outer * u**3 * (4 - 5 * u + 1.8 * u**2) / (2 * r)  # half of it, because the edges list each pair twice
    return system.positions.index_add(0, pairs.neighbor, push[:, None] * vec)


def repulsion(models: Sequence[Model], system: System, edges: Edges, *, volume: float) -> list[dict]:
    """Compute energy, forces and stress of the repulsive cores.

    Parameters
    ----------
    models : sequence of Model
    system, edges
        One structure in float64.
    volume : float, Å^3

    Returns
    -------
    list of dict by model
        ASE's results; an empty dict where no atoms are within a core.
    """
    cores = [model.core for model in models if model.core is not None]
    if len(cores) < len(models) or edges.shortest > max(core.longest for core in cores):
        return []
    found, vec = [], edges.vec.detach().requires_grad_(True)
    for core in cores:
        none = vec.new_zeros(len(system.numbers))
        with torch.enable_grad():
            energies = core(none, vec.new_zeros(len(core.species)), system, edges.with_vec(vec))
        gradient = torch.zeros_like(vec)
        if energies.requires_grad:  # without a gradient, no close pair is within the core of its species
            (gradient,) = torch.autograd.grad(energies.sum(), vec)
            none = energies.detach()
        found.append(potential_results(none, gradient, edges, volume=volume))
    return found
