"""Losses: what a model is asked to get right.

A loss is called with a model, a batch and the learning-rate ratio, and returns (value, dict of mean squared errors).
``labels`` names what it compares with; ``moves_atoms`` tells whether it needs gradients with respect to the geometry,
without which a fixed descriptor can be evaluated once for the whole training.
"""
from dataclasses import dataclass
from typing import ClassVar

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
    strong_force : eV/Å; errors of atoms and structures count less beyond it, by 1/(1 + (|F|/strong_force)^2), so that
        structures pushed together teach repulsion without taking over.  None: all count alike.

    Source: Rottenberg 2023, Eqs. (2.20)-(2.21).
    """
    energy: tuple = (0.02, 1.0)
    forces: tuple = (1000.0, 1.0)
    virial: tuple = (0.0, 0.0)
    strong_force: float | None = None
    moves_atoms: ClassVar = True

    @property
    def labels(self):
        terms = {"energy": self.energy, "forces": self.forces, "virial": self.virial}
        return tuple(name for name, ends in terms.items() if any(ends))

    def __call__(self, model, batch, ratio):
        energy, derivatives = energy_and_derivatives(model, batch, self.labels)
        n_atoms = batch.system.n_atoms.to(energy.dtype)
        atomic, whole = self.weights(batch, n_atoms)
        loss, errors = energy.new_zeros(()), {}
        if "energy" in self.labels:
            error = (energy - batch.labels["energy"]) ** 2
            loss = loss + prefactor(self.energy, ratio) * (whole * error / n_atoms).mean()
            errors["energy_eV_per_atom"] = (error / n_atoms**2).mean()
        if "forces" in self.labels:
            error = ((derivatives["forces"] - batch.labels["forces"]) ** 2).mean(dim=1)
            loss = loss + prefactor(self.forces, ratio) * (batch.system.sum_per_system(atomic * error) / n_atoms).mean()
            errors["forces_eV_per_A"] = error.mean()
        if "virial" in self.labels:
            error = ((derivatives["virial"] - batch.labels["virial"]) ** 2).mean(dim=(1, 2))
            loss = loss + prefactor(self.virial, ratio) * (whole * error / n_atoms).mean()
            errors["virial_eV_per_atom"] = (error / n_atoms**2).mean()
        return loss, errors

    def weights(self, batch, n_atoms):
        """Weights of the atoms [N] and of the structures [B], from the forces of the labels."""
        if self.strong_force is None or "forces" not in batch.labels:
            return torch.ones_like(batch.system.batch, dtype=n_atoms.dtype), torch.ones_like(n_atoms)
        atomic = 1 / (1 + (batch.labels["forces"] ** 2).sum(dim=1) / self.strong_force**2)
        return atomic, batch.system.sum_per_system(atomic) / n_atoms


def energy_and_derivatives(model, batch, quantities=("forces", "virial")):
    """Energies [B] eV, and dict of forces [N, 3] eV/Å and virial [B, 3, 3] eV, those asked for.

    Under ``torch.no_grad()`` the graph through the derivatives is not kept, which halves time and memory.
    """
    training = torch.is_grad_enabled()
    with torch.enable_grad():
        positions, strain, system, edges = batch.strained_edges()
        energy = system.sum_per_system(model(system, edges, ("energy",))["energy"])
        leaves = {name: leaf for name, leaf in (("forces", positions), ("virial", strain)) if name in quantities}
        gradients = torch.autograd.grad(energy.sum(), list(leaves.values()), create_graph=training) if leaves else ()
    return energy if training else energy.detach(), {name: -g for name, g in zip(leaves, gradients)}


@dataclass(frozen=True)
class SpectrumLoss:
    """Mean squares over atoms and energies of the ADOS, and over structures of the DOS per atom and its integral.

    atomic, total, cumulative : weights.  With total = cumulative = 0 the loss is the square of the paper's, divided by
    the width of the energy window; with atomic = 0 it needs no ADOS, only the total DOS.

    Source: Zeng et al. 2022, Eq. (2); cumulative term as in Ben Mahmoud et al. 2020.
    """
    atomic: float = 1.0
    total: float = 0.0
    cumulative: float = 0.0
    moves_atoms: ClassVar = False

    @property
    def labels(self):
        return ("ados",) if self.atomic else ("dos",)

    def __call__(self, model, batch, ratio):
        prediction = batch.predict(model, "dos")
        system, step = batch.system, model.heads["dos"].energies.diff().mean()
        n_atoms = system.n_atoms.to(prediction.dtype)[:, None]
        loss, errors = prediction.new_zeros(()), {}
        if self.atomic:
            error = (prediction - batch.labels["ados"]) ** 2
            loss = loss + self.atomic * error.mean()
            errors["ados_per_eV"] = error.mean()
            total = system.sum_per_system(prediction - batch.labels["ados"]) / n_atoms
        else:
            total = (system.sum_per_system(prediction) - batch.labels["dos"]) / n_atoms
        errors["dos_per_atom_eV"] = (total**2).mean()
        states = (total.cumsum(dim=1) * step) ** 2
        return loss + self.total * (total**2).mean() + self.cumulative * states.mean(), errors


@dataclass(frozen=True)
class VectorLoss:
    """Mean squares over the components of the vectors of centres, and of their sum over a structure per centre.

    atomic, total : weights; with atomic = 0 it needs no atomic_dipole, only summed_dipole

    Source: Zhang et al. 2020, text before Eq. (6).
    """
    atomic: float = 1.0
    total: float = 0.0
    moves_atoms: ClassVar = False
    quantity: ClassVar = "dipole"
    label: ClassVar = {"atomic": "atomic_dipole", "total": "summed_dipole"}
    unit: ClassVar = "A"

    @property
    def labels(self):
        return (self.label["atomic" if self.atomic else "total"],)

    def __call__(self, model, batch, ratio):
        atomic, total = centre_errors(model, batch, self.quantity, self.labels[0])
        n_centers = batch.system.sum_per_system(model.is_center(batch.system.numbers, self.quantity).to(total.dtype))
        square = (total.flatten(1) / n_centers.clamp(min=1)[:, None]).square().mean()
        loss, squares = self.total * square, {f"total_{self.unit}_per_centre": square}
        if self.atomic:
            square = atomic.square().mean()
            loss, squares[f"atomic_{self.unit}"] = loss + self.atomic * square, square
        return loss, squares


@dataclass(frozen=True)
class TensorLoss(VectorLoss):
    """As VectorLoss, of symmetric tensors: what is antisymmetric in the labels is no part of a polarizability.

    atomic, total : weights; with atomic = 0 it needs no atomic_polarizability, only polarizability
    """
    quantity: ClassVar = "polarizability"
    label: ClassVar = {"atomic": "atomic_polarizability", "total": "polarizability"}
    unit: ClassVar = "A3"


def centre_errors(model, batch, quantity, label):
    """Prediction - label of the centres [C, ...] and of the sum over each structure [B, ...].

    The first is None where the label is that of a structure.  Tensors are compared with the symmetric part of theirs.
    """
    prediction, truth = batch.predict(model, quantity), batch.labels[label]
    if quantity == "polarizability":
        truth = (truth + truth.mT) / 2
    if not label.startswith("atomic"):
        return None, batch.system.sum_per_system(prediction) - truth
    rows = model.is_center(batch.system.numbers, quantity).nonzero()[:, 0]
    return (prediction - truth).index_select(0, rows), batch.system.sum_per_system(prediction - truth)
