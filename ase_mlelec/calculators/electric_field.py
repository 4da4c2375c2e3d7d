"""Response of a DeepWannierCalculator to an electric field: dipoles and their gradients, to second order in the field."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ase_mlelec import units
from ase_mlelec.calculators.extrapolation import CHUNK
from ase_mlelec.heads import TensorHead, VectorHead
from ase_mlelec.threads import map_chunks

VECTORS, TENSORS = VectorHead.quantity, TensorHead.quantity  # names of heads


class AnswersField:
    """Mix-in of DeepWannierCalculator with energy and forces of the field, and gradients of the dipole."""

    atoms: Any
    metadata: dict[str, Any]
    device: torch.device
    _field: NDArray | None
    _order: int
    _geometry: Any
    _charges: Any
    _reach: Any

    def _work(self, model):
        """Contributions of the field to energy and forces, dict by name."""
        assert self._field is not None
        (moment,), (forces,) = self._response(model, self._field[None])
        energy = -float(moment)
        if self._order == 2:
            (moment,), (slopes,) = self._induced(model, self._field[None])
            energy, forces = energy - float(moment) / 2, forces + slopes / 2
        return {"energy": energy, "free_energy": energy, "forces": forces}

    def _slopes(self, model, directions):
        """Gradients [n, N, 3], e, of the components along ``directions`` [n, 3] of the dipole, with the induced one."""
        slopes = self._response(model, directions)[1]
        second = self._order == 2 and self._field is not None
        return slopes + self._induced(model, directions)[1] if second else slopes

    def _response(self, model, directions):
        """Components, e Å, of the dipole without a field along ``directions`` [n, 3], and their gradients [n, N, 3], e."""
        charge, electrons = self._charges()
        weights = torch.as_tensor(-electrons / self.metadata.get("functions_per_vector", 1), device=self.device)

        def components(values, part, along):
            return (values * weights[part.atoms, None]) @ along.T

        values, gradient = self._sums(model, VECTORS, components, directions)
        values = values + np.asarray(directions) @ (charge @ self.atoms.positions)
        return values, gradient + charge[:, None] * np.asarray(directions)[:, None]

    def _induced(self, model, directions):
        """Components [n], e Å, of the induced dipole along ``directions`` [n, 3], and their gradients [n, N, 3], e."""
        field = torch.as_tensor(self._field / units.COULOMB, dtype=torch.float64, device=self.device)
        return self._sums(model, TENSORS, lambda values, part, along: (values @ field) @ along.T, directions)

    def _sums(self, model, name, components, directions):
        """Sums [n] over the centers of ``components(values, edges, directions)`` [C, n], and their gradients [n, N, 3]."""
        system, edges = self._geometry()
        rows = model.is_center(system.numbers, name).nonzero()[:, 0]
        along = torch.as_tensor(np.asarray(directions), dtype=torch.float64, device=self.device)
        total = torch.zeros(len(along), dtype=torch.float64, device=self.device)
        gradient = torch.zeros(len(along), len(self.atoms), 3, dtype=torch.float64, device=self.device)

        def slopes(chunk):
            leaf = chunk[1].with_vec(chunk[1].vec.detach().requires_grad_(True))
            values = model.heads[name](model.environment(name, system, leaf), leaf).double()
            sums = components(values, leaf, along).sum(dim=0)
            found = [
                torch.autograd.grad(each, leaf.vec, retain_graph=k < len(along))[0] for k, each in enumerate(sums, 1)
            ]
            return leaf, sums.detach(), found

        chunks = self._reach(model, edges).at_centers(rows).chunks(CHUNK)
        for part, sums, found in map_chunks(slopes, chunks, device=self.device):
            total += sums
            for own, slope in zip(gradient, found):
                own.index_add_(0, part.neighbor, slope.double())
                own.index_add_(0, part.atoms[part.center], -slope.double())
        return total.cpu().numpy(), gradient.cpu().numpy()
