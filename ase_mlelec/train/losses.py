"""Losses: what a model is asked to get right.  Each is called with a model, a batch and the learning-rate ratio."""
from dataclasses import dataclass

import torch


def prefactor(ends, ratio):
    """p = p_limit (1 - ratio) + p_start ratio, with ratio = present/first learning rate.

    Source: Rottenberg 2023, Eq. (2.21).
    """
    start, limit = ends
    return limit * (1 - ratio) + start * ratio


@dataclass(frozen=True)
class EnergyLoss:
    """p_e/N dE^2 + p_f/(3N) sum |dF|^2 + p_v/(9N) |dΞ|^2, averaged over the structures of a batch.

    energy, forces, virial : (start, limit) prefactors; a zero limit and start leaves the term and its label out

    Source: Rottenberg 2023, Eqs. (2.20)-(2.21).
    """
    energy: tuple = (0.02, 1.0)
    forces: tuple = (1000.0, 1.0)
    virial: tuple = (0.0, 0.0)

    @property
    def labels(self):
        terms = {"energy": self.energy, "forces": self.forces, "virial": self.virial}
        return tuple(name for name, ends in terms.items() if any(ends))

    def __call__(self, model, batch, ratio):
        positions, strain, system, edges = batch.strained_edges()
        energy = system.sum_per_system(model(system, edges, ("energy",))["energy"])
        wanted = [positions, strain] if "virial" in self.labels else [positions]
        n_atoms = system.n_atoms.to(energy.dtype)
        loss, errors = energy.new_zeros(()), {}
        if "energy" in self.labels:
            error = (energy - batch.labels["energy"]) ** 2
            loss = loss + prefactor(self.energy, ratio) * (error / n_atoms).mean()
            errors["energy_eV_per_atom"] = (error / n_atoms**2).mean()
        if "forces" in self.labels or "virial" in self.labels:
            gradients = torch.autograd.grad(energy.sum(), wanted, create_graph=torch.is_grad_enabled())
        if "forces" in self.labels:
            error = (gradients[0] + batch.labels["forces"]) ** 2
            loss = loss + prefactor(self.forces, ratio) * error.mean()
            errors["forces_eV_per_A"] = error.mean()
        if "virial" in self.labels:
            error = ((gradients[1] + batch.labels["virial"]) ** 2).mean(dim=(1, 2))
            loss = loss + prefactor(self.virial, ratio) * (error / n_atoms).mean()
            errors["virial_eV_per_atom"] = (error / n_atoms**2).mean()
        return loss, errors


@dataclass(frozen=True)
class SpectrumLoss:
    """Mean squares over atoms and energies of the ADOS, and over structures of the DOS per atom and its integral.

    atomic, total, cumulative : weights.  With total = cumulative = 0 the loss is the square of the paper's, divided by
    the width of the energy window.

    Source: Zeng et al. 2022, Eq. (2); cumulative term as in Ben Mahmoud et al. 2020.
    """
    atomic: float = 1.0
    total: float = 0.0
    cumulative: float = 0.0

    @property
    def labels(self):
        return ("ados",) if self.atomic or not self.total else ("dos",)

    def __call__(self, model, batch, ratio):
        prediction = model(batch.system, batch.edges(), ("dos",))["dos"]
        system, step = batch.system, model.heads["dos"].energies.diff().mean()
        n_atoms = system.n_atoms.to(prediction.dtype)[:, None]
        loss, errors = prediction.new_zeros(()), {}
        if "ados" in batch.labels:
            error = (prediction - batch.labels["ados"]) ** 2
            loss = loss + self.atomic * error.mean()
            errors["ados_per_eV"] = error.mean()
            total = system.sum_per_system(prediction - batch.labels["ados"]) / n_atoms
        else:
            total = (system.sum_per_system(prediction) - batch.labels["dos"]) / n_atoms
        errors["dos_per_atom_eV"] = (total**2).mean()
        states = (total.cumsum(dim=1) * step) ** 2
        return loss + self.total * (total**2).mean() + self.cumulative * states.mean(), errors
