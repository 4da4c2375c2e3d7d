"""Stillinger-Weber silicon (Phys. Rev. B 31, 5262, 1985): the classical potential that samples the first structures."""

import numpy as np
import torch
import vesin
from ase.calculators.calculator import Calculator, all_changes


class StillingerWeber(Calculator):
    implemented_properties = ["energy", "forces"]
    epsilon, sigma, a, lam, gamma, A, B = 2.1683, 2.0951, 1.80, 21.0, 1.20, 7.049556277, 0.6022245584

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        cutoff = self.a * self.sigma - 1e-3
        neighbors = vesin.NeighborList(cutoff=cutoff, full_list=True)
        i, j, shift = neighbors.compute(atoms.positions, atoms.cell.array, periodic=True, quantities="ijS")
        order = np.argsort(i, kind="stable")
        i, j, shift = (torch.as_tensor(np.asarray(x)[order].astype(np.int64)) for x in (i, j, shift))
        position = torch.tensor(atoms.positions, requires_grad=True)
        vec = position[j] - position[i] + shift.double() @ torch.tensor(atoms.cell.array)
        energy = self.energy(vec, i, len(atoms))
        (gradient,) = torch.autograd.grad(energy, position)
        self.results = {"energy": float(energy.detach()), "forces": -gradient.numpy()}

    def energy(self, vec, center, n_atoms):
        x = vec.norm(dim=1) / self.sigma
        pair = self.A * (self.B / x**4 - 1) * torch.exp(1 / (x - self.a))
        decay = torch.exp(self.gamma / (x - self.a))
        # pad the neighbors of every atom to [N, most]: all angles are then one batched product
        slot = torch.arange(len(center)) - torch.searchsorted(center, center)
        shape = (n_atoms, int(slot.max()) + 1)
        unit = torch.zeros(*shape, 3, dtype=vec.dtype).index_put((center, slot), vec / vec.norm(dim=1, keepdim=True))
        weight = torch.zeros(shape, dtype=vec.dtype).index_put((center, slot), decay)
        angle = (unit @ unit.transpose(1, 2) + 1 / 3) ** 2 * weight[:, :, None] * weight[:, None, :]
        triples = 0.5 * (angle.sum() - angle.diagonal(dim1=1, dim2=2).sum())
        return self.epsilon * (0.5 * pair.sum() + self.lam * triples)
