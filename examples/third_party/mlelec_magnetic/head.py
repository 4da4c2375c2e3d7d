"""MomentHead: magnetic moments from features."""

import torch
from torch import Tensor

from ase_mlelec.descriptors import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.heads import Head
from ase_mlelec.heads.base import FittingNets


class MomentHead(Head):
    """Sizes of the magnetic moments of atoms, Bohr magnetons: never negative.

    Parameters
    ----------
    n_species, n_features : int
    """

    quantity = "magnetic_moment"

    def __init__(self, n_species: int, n_features: int):
        super().__init__()
        self.n_species, self.n_features = n_species, n_features
        self.nets = FittingNets(n_species, n_features, (8,), 1)

    def arguments(self) -> dict:
        """Arguments of the constructor, for the model file."""
        return {"n_species": self.n_species, "n_features": self.n_features}

    def forward(self, environment: Environment, edges: Edges | None) -> Tensor:
        """Moments [C] of all centers."""
        return torch.nn.functional.softplus(self.nets(environment.features, environment.species)[:, 0])
