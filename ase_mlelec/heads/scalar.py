"""A scalar of every center, such as the atomic energy."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import FittingNets, Head
from ase_mlelec.nets import constructor_arguments


class ScalarHead(Head):
    """Atomic energies [N], eV.

    References
    ----------
    Zhang et al. 2018, Eq. (2).
    """

    quantity = "energy"
    common_responses = True

    def __init__(
        self,
        n_species: int,
        n_features: int,
        widths: Sequence[int] = (240, 240, 240),
        timestep: bool = False,
        activation: str = "tanh",
    ):
        super().__init__()
        self.n_species, self.n_features, self.widths, self.timestep = n_species, n_features, tuple(widths), timestep
        self.activation = activation
        self.nets = FittingNets(n_species, n_features, self.widths, 1, timestep, activation)

    def arguments(self) -> dict[str, Any]:
        return constructor_arguments(self, rare=("activation",))

    @property
    def reference(self) -> Tensor:
        """Tensor [species], eV: the energy of an atom without knowledge of its environment."""
        return self.nets.bias[:, 0]

    def forward(self, environment: Environment, edges: Edges) -> Tensor:
        return self.nets(environment.features, environment.species)[:, 0]

    def last_inputs(self, environment: Environment) -> tuple[Tensor, Tensor]:
        """Inputs [C, H] of the last layer, and the number [C] of the net of every center."""
        return self.nets.last_inputs(environment.features, environment.species), environment.species

    def change_last(self, change: Tensor) -> None:
        """Add ``change`` [nets, H + 1, outputs] to the weights and constants of the last layer."""
        self.nets.change_last(change)

    def responses(self, environment: Environment, outputs: Tensor) -> Tensor:
        """Energies [Q] of columns of outputs [1, Q]; see ase_mlelec.uncertainty.bars."""
        return outputs[0]
