"""Models of energies for torch-sim, which moves many structures at once; needs torch-sim-atomistic."""

from typing import Any

import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface

from ase_mlelec.bundle import load_model
from ase_mlelec.calculators.evaluation import energies_of
from ase_mlelec.calculators.extrapolation import CHUNK
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.system import System


class TorchSimModel(ModelInterface):
    """Energy, forces and stress of a batch of structures, as torch-sim's integrators and optimizers want them.

    Parameters
    ----------
    model : str, Path or Model
        With an energy; as in ``load_model``.
    device : torch device, optional
        Default: CUDA where there is one.
    dtype : torch dtype
        Precision of the results. Energies that are linear in the features remain in float64 inside, see
        ``Model.for_evaluation``.

    Raises
    ------
    ValueError
        For models without an energy.

    Notes
    -----
    All structures share one neighbor search. Structures without a volume have a stress of zero.

    Examples
    --------
    ``torch_sim.integrate(system=images, model=TorchSimModel("si"), integrator=torch_sim.nvt_langevin,
    n_steps=100, temperature=300, timestep=0.001)``
    """

    def __init__(
        self, model: Any, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        loaded: Model = load_model(model)
        if "energy" not in loaded.heads:
            raise ValueError(f"got a model of {', '.join(loaded.heads)}, need one with an energy; give another one")
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._dtype = dtype
        self._compute_forces = self._compute_stress = True
        self.model = loaded.for_evaluation(dtype).to(self._device)

    def forward(self, state: Any, **options: Any) -> dict[str, Tensor]:
        """Evaluate a state of torch-sim.

        Returns
        -------
        dict of Tensor
            energy [B], eV; forces [N, 3], eV/Å; stress [B, 3, 3], eV/Å^3.
        """
        system = _system_of(state)
        self.model.check_species(system.numbers)
        edges = Edges.build(system, self.model.cutoff)
        near = edges.up_to(self.model.descriptor.cutoff)
        found = [energies_of(self.model, system, False, False, chunk) for chunk in near.chunks(CHUNK)]
        energies = torch.cat([energy.double() for _, energy, _, _ in found])
        slopes = torch.cat([gradient.double() for _, _, gradient, _ in found])
        forces = torch.zeros_like(system.positions).index_add_(0, near.center, slopes)
        forces.index_add_(0, near.neighbor, -slopes)
        sheared = near.vec[:, :, None] * slopes[:, None]
        virials = torch.zeros_like(system.cell).index_add_(0, system.batch[near.center], -(sheared + sheared.mT) / 2)
        total = system.sum_per_system(energies)
        if self.model.long_range is not None:
            terms = self.model.long_range.terms(self.model, system, edges)
            total, forces = total + system.sum_per_system(terms.energies), forces + terms.forces
            virials = virials + terms.virials
        volume = system.volume[:, None, None]
        stress = torch.where(volume > 0, -virials / volume.clamp(min=1e-12), 0.0)
        return {
            name: x.detach().to(self._dtype) for name, x in zip(("energy", "forces", "stress"), (total, forces, stress))
        }


def _system_of(state):
    """System in float64; torch-sim has cell vectors in columns, and one pbc for all structures."""
    cell = state.row_vector_cell.detach().double()
    pbc = torch.as_tensor(state.pbc, device=cell.device).expand(len(cell), 3)
    return System(state.positions.detach().double(), state.atomic_numbers.long(), cell, pbc, state.system_idx.long())
