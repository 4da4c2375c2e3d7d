"""Gradients of the energy along directions of its posterior, from which bars of forces and stress follow."""

from typing import Any

import torch
from torch import Tensor

from ase_mlelec.system import System
from ase_mlelec.uncertainty import contributions, slopes_of_energies


def leverage_and_gradients(model: Any, system: System, chunk: tuple) -> tuple[Tensor, ...]:
    """(leverage [C], derivatives [E, 3] by the vectors in every direction ...) of a chunk.

    A chunk is (edges, environment with its graph), (edges, environment, derivatives) for a linear energy, or (rows, edges).
    """
    first, environment, *known = chunk
    if model.has_linear_energy:
        if isinstance(first, slice):
            environment, _, _, *known = model.linear_energy_with_environment(system, environment, directions=True)
        return model.linear_bars.leverage(environment.features, environment.species), *known[0]
    if isinstance(first, slice):
        first = environment.with_vec(environment.vec.detach().requires_grad_(True))
        environment = model.environment("energy", system, first).keeping()
    head, posterior, vec = model.heads["energy"], model.posteriors["energy"], first.vec
    inputs, nets = head.last_inputs(environment)
    with torch.no_grad():
        leverage = contributions(head, posterior, environment, (inputs, nets)).z.square().sum(dim=1)
        slopes = slopes_of_energies(posterior, nets).to(inputs)
    return leverage, *(
        torch.autograd.grad(inputs, vec, each, retain_graph=k + 1 < len(slopes))[0] for k, each in enumerate(slopes)
    )
