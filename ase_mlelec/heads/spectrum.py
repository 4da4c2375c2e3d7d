"""A spectrum of every centre on a fixed energy grid, such as the atomic density of states."""
import torch

from ase_mlelec.heads.base import FittingNets, Head


class SpectrumHead(Head):
    """Atomic DOS [N, S], states/eV, on ``energies`` [S] (eV).

    Source: Zeng et al. 2022, Eq. (1).
    """
    quantity = "dos"

    def __init__(self, n_species, n_features, energies, widths=(240, 240, 240), timestep=False):
        super().__init__()
        self.n_species, self.n_features, self.widths, self.timestep = n_species, n_features, tuple(widths), timestep
        # a copy, as the caller's array may change; no buffer, as float32 would round the grid
        self.energies = torch.as_tensor(energies, dtype=torch.float64).clone()
        self.nets = FittingNets(n_species, n_features, self.widths, len(self.energies), timestep)

    def arguments(self):
        return dict(n_species=self.n_species, n_features=self.n_features, energies=self.energies.tolist(),
                    widths=list(self.widths), timestep=self.timestep)

    def forward(self, environment, edges):
        return self.nets(environment.features, environment.species)
