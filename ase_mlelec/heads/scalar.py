"""A scalar of every center, such as the atomic energy."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import FittingNets, Head
from ase_mlelec.nets import constructor_arguments


class ScalarHead(Head):
    r"""Atomic energies [N], eV.

    With ``lone`` the energies of isolated atoms have given values, though nets alone would give others: an atom of species
    s with features x has :math:`E_s(x) + c_s \exp(-x^2/l_s^2)`. An isolated atom has features of zero, and l is so small
    that the second term is nothing near the training data.

    References
    ----------
    Zhang et al. 2018, Eq. (2).
    """

    quantity = "energy"
    common_responses = True
    corrections: Tensor
    lengths: Tensor

    def __init__(
        self,
        n_species: int,
        n_features: int,
        widths: Sequence[int] = (240, 240, 240),
        timestep: bool = False,
        activation: str = "tanh",
        lone: bool = False,
    ):
        super().__init__()
        self.n_species, self.n_features, self.widths, self.timestep = n_species, n_features, tuple(widths), timestep
        self.activation = activation
        self.nets = FittingNets(n_species, n_features, self.widths, 1, timestep, activation)
        self.lone = False
        if lone:
            self.add_lone(torch.zeros(n_species), torch.ones(n_species))

    @torch.no_grad()
    def add_lone(self, corrections: Tensor, lengths: Tensor) -> None:
        """Add ``corrections`` [species], eV, to the energies of isolated atoms, see above, with ``lengths`` [species]."""
        self.lone = True
        self.register_buffer("corrections", corrections.to(self.nets.bias))
        self.register_buffer("lengths", lengths.to(self.nets.bias))

    def arguments(self) -> dict[str, Any]:
        return constructor_arguments(self, rare=("activation", "lone"))

    @property
    def reference(self) -> Tensor:
        """Tensor [species], eV: the energy of an atom without knowledge of its environment."""
        return self.nets.bias[:, 0]

    def forward(self, environment: Environment, edges: Edges) -> Tensor:
        energies = self.nets.of(environment)[:, 0]
        if not self.lone:
            return energies
        features = environment.features.to(self.lengths.dtype)
        sizes = features.square().sum(dim=1) / self.lengths[environment.species] ** 2
        return energies + self.corrections[environment.species] * torch.exp(-sizes)

    def with_slopes(self, environment: Environment) -> tuple[Tensor, Tensor] | None:
        """Energies [C] and their derivatives [C, F] by the features, without a graph; None where there is no short way."""
        keeps = self.lone or environment.kept is not None
        return None if keeps else self.nets.with_slopes(environment.features.detach(), environment.species)

    def is_linear(self) -> bool:
        """Whether the energy is linear in the features."""
        return not self.lone and self.nets.is_linear()

    def as_linear(self) -> tuple[Tensor, Tensor] | None:
        """Weights [species, F] of the features and constants [species], eV; None where the energy is not linear."""
        found = None if self.lone else self.nets.as_linear()
        return None if found is None else (found[0][:, 0], found[1][:, 0])

    def last_inputs(self, environment: Environment) -> tuple[Tensor, Tensor]:
        """Inputs [C, H] of the last layer, and the number [C] of the net of every center."""
        return self.nets.inputs_of(environment), environment.species

    def change_last(self, change: Tensor) -> None:
        """Add ``change`` [nets, H + 1, outputs] to the weights and constants of the last layer."""
        self.nets.change_last(change)

    def responses(self, environment: Environment, outputs: Tensor) -> Tensor:
        """Energies [Q] of columns of outputs [1, Q]; see ase_mlelec.uncertainty.bars."""
        return outputs[0]
