"""RadialDensity: how many atoms of each species there are on shells around an atom."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ase_mlelec.descriptors import Descriptor, Environment
from ase_mlelec.descriptors.base import species_table
from ase_mlelec.edges import Edges
from ase_mlelec.system import System


class RadialDensity(Descriptor):
    """Densities of each species on Gaussian shells, which fade out at the cutoff.

    F = species * n_radial.

    Parameters
    ----------
    species : sequence of chemical symbols
    cutoff : float, Å
    n_radial : int
        Number of shells between 0.5 Å and the cutoff.
    """

    centers: Tensor
    table: Tensor

    def __init__(self, species: Sequence[str], *, cutoff: float, n_radial: int = 6):
        super().__init__()
        self.species, self.cutoff, self.n_radial = tuple(species), float(cutoff), int(n_radial)
        self.n_features = len(self.species) * self.n_radial
        # computed from the arguments, and therefore no part of a model file
        self.register_buffer("centers", torch.linspace(0.5, self.cutoff, self.n_radial), persistent=False)
        self.register_buffer("table", species_table(self.species), persistent=False)

    def arguments(self) -> dict:
        """Arguments of the constructor, for the model file."""
        return {"species": list(self.species), "cutoff": self.cutoff, "n_radial": self.n_radial}

    def forward(self, system: System, edges: Edges) -> Environment:
        """Environment of all centers of ``edges``."""
        species = self.table[system.numbers]
        r = edges.vec.norm(dim=1)  # the only geometry: forces and stress come from the gradient through it
        centers = self.centers.to(r.dtype)
        width = (self.cutoff - 0.5) / self.n_radial
        shells = (
            torch.exp(-(((r[:, None] - centers) / width) ** 2)) * (1 - (r[:, None] / self.cutoff) ** 2).clamp(0) ** 3
        )
        place = edges.center * len(self.species) + species[edges.neighbor]
        features = torch.zeros(edges.n_centers * len(self.species), self.n_radial, dtype=r.dtype, device=r.device)
        features = features.index_add(0, place, shells).reshape(edges.n_centers, self.n_features)
        return Environment(features, species[edges.atoms])
