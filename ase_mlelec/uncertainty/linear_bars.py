"""Bars of forces of energies that are linear in the features: directions and leverage without a graph."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec.uncertainty.bars import N_GRADIENTS
from ase_mlelec.uncertainty.posterior import Posterior


class LinearBars(NamedTuple):
    """What bars of forces need of a posterior, by the features themselves, in float64.

    Attributes
    ----------
    directions : Tensor [n, species, F]
        Weights of the features in the energies whose forces give the bars, as ``slopes_of_energies`` has them.
    inputs : Tensor [species, F, K]
    constants : Tensor [species, K]
        Coordinates of a center with features x are x inputs + constants.
    """

    directions: Tensor
    inputs: Tensor
    constants: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, head: Any, posterior: Posterior) -> "LinearBars":
        """Those of a head that is linear in the features."""
        shift, inverse, known = (part.double() for part in (head.nets.shift, head.nets.inverse, posterior.inputs))
        inputs = inverse[:, :, None] * known[:, :-1]
        weights = torch.einsum("sfk,nk->nsf", inputs, posterior.directions(N_GRADIENTS).double())
        return cls(
            weights * posterior.outputs[0, 0].double(), inputs, known[:, -1] - torch.einsum("sf,sfk->sk", shift, inputs)
        )

    def leverage(self, features: Tensor, species: Tensor) -> Tensor:
        """Squared coordinates [C] of centers with ``features`` [C, F]."""
        found = features.new_empty(len(features), dtype=torch.float64)
        for k, (inputs, constants) in enumerate(zip(self.inputs, self.constants)):
            rows = slice(None) if len(self.inputs) == 1 else (species == k).nonzero()[:, 0]
            found[rows] = torch.addmm(constants, features[rows].double(), inputs).square().sum(dim=1)
        return found
