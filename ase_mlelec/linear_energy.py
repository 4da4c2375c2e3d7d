"""Energies that are linear in the features of their descriptor: evaluated without the features, and with error bars."""

from typing import Any

import torch
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.uncertainty import LinearBars


class HasLinearEnergy:
    """Mix-in of Model with its short ways where the energy head is linear."""

    heads: Any
    posteriors: Any
    core: Any
    descriptor_of: Any
    species_index: Any
    _with_core: Any
    _linear: tuple | None
    _linear_bars: tuple | None

    def linear_energy(self, system: System, edges: Edges) -> tuple[Tensor, Tensor] | None:
        """Atomic energies [C] and derivatives [E, 3] of their sum by the vectors, for a linear head, without the features.

        None for other heads. ``edges`` may reach beyond the cutoff of the descriptor.
        """
        if not self.has_linear_energy:
            return None
        weights, constants = self.linear_head
        values, gradient = self.descriptor_of("energy").sums_with_gradient(system, edges, weights)
        return self._linear_with_core(
            values + constants.index_select(0, self.species_index(system.numbers).index_select(0, edges.atoms)),
            gradient,
            system,
            edges,
        )

    def linear_energy_with_environment(
        self, system: System, edges: Edges, *, directions: bool
    ) -> tuple[Environment, Tensor, Tensor, list[Tensor]]:
        """As ``linear_energy``, beside the features, for a model with a linear head.

        With ``directions`` there are the derivatives that bars of forces need, of a model with a posterior.

        Returns (environments, atomic energies [C], dE/dvec [E, 3], derivatives [E, 3] of every direction, list).
        """
        weights, constants = self.linear_head
        every = weights[None]
        if directions:
            every = torch.cat([every, self.linear_bars.directions.to(weights)])
        environment, sums, (gradient, *others) = self.descriptor_of("energy").sums_with_environment(
            system, edges, every
        )
        energies = sums[0] + constants[environment.species]
        return environment, *self._linear_with_core(energies, gradient, system, edges), others

    def _linear_with_core(self, energies, gradient, system, edges):
        if self.core is None or self.core.is_idle(edges):
            return energies, gradient
        own, leaf = energies.requires_grad_(True), edges.with_vec(edges.vec.detach().requires_grad_(True))
        energies = self._with_core(own, system, leaf)
        if energies is own:
            return own.detach(), gradient
        by_energy, by_vec = torch.autograd.grad(energies.sum(), [own, leaf.vec])
        return energies.detach(), gradient * by_energy[edges.center, None] + by_vec

    @property
    def has_linear_energy(self) -> bool:
        """Whether there is a ``linear_head``; it is not looked at whether that has to be computed again."""
        head = self.heads["energy"]
        return hasattr(head, "is_linear") and head.is_linear()

    @property
    def linear_head(self) -> tuple[Tensor, Tensor]:
        """Weights [species, F] of the features and constants [species], eV, of a linear energy.

        They are computed again where an array of the head has changed.
        """
        head = self.heads["energy"]
        state = [id(head), *_state(head)]
        if self._linear is None or self._linear[0] != state:
            self._linear = state, head.as_linear()
        return self._linear[1]

    @property
    def linear_bars(self) -> LinearBars:
        """LinearBars of a linear energy with a posterior; computed again where an array of either has changed."""
        head, posterior = self.heads["energy"], self.posteriors["energy"]
        state = [id(head), id(posterior), *_state(head), *_state(posterior)]
        if self._linear_bars is None or self._linear_bars[0] != state:
            self._linear_bars = state, LinearBars.of(head, posterior)
        return self._linear_bars[1]


def _state(module):
    """Place and version of every array of a module; in a tenth of the time of ``parameters`` and ``buffers``."""
    own = (*module._parameters.values(), *module._buffers.values())
    found = [(array.data_ptr(), array._version) for array in own if array is not None]
    for child in filter(None, module._modules.values()):
        found += _state(child)
    return found
