"""Losses: what a model is asked to get right.

A loss is called with a model, a batch and the learning-rate ratio, and returns (value, dict of mean squared errors).
All its terms are means over the structures of the batch, or their atoms, that have the label; a term that none of them
has a label for is left out.  ``labels`` names what it compares with, ``terms`` the labels, any of which will do, that
each term with a weight needs, ``sources`` those behind each of the errors; ``moves_atoms`` tells whether it needs
gradients with respect to the geometry, without which a fixed descriptor can be evaluated once for the whole training.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch


def missing_terms(loss, frames):
    """dict of the terms of a loss that no frame has a label for -> these labels, any of which would do."""
    counts = frames.counts
    return {
        term: names for term, names in getattr(loss, "terms", {}).items() if not any(name in counts for name in names)
    }


def check_terms(loss, frames):
    """Raise ValueError where no frame has a label for one of the terms of a loss."""
    for term, names in missing_terms(loss, frames).items():
        raise ValueError(
            f"no label {' or '.join(map(repr, names))} in any of {len(frames)} frames, they have "
            f"{', '.join(frames.counts) or 'none'}; add it or take its term out of the loss: '{term}'"
        )


def prefactor(ends, ratio):
    """p = p_limit (1 - ratio) + p_start ratio, with ratio = present/first learning rate.

    Source: Rottenberg 2023, Eq. (2.21).
    """
    start, limit = ends
    return limit * (1 - ratio) + start * ratio


@dataclass(frozen=True)
class EnergyLoss:
    """p_e/N dE^2 + p_f/(3N) sum |dF|^2 + p_v/(9N) |dΞ|^2, each term averaged over the structures of a batch that have
    its label.

    energy, forces, virial : (start, limit) prefactors; a zero limit and start leaves the term and its label out
    strong_force : eV/Å; errors of atoms and structures count less beyond it, by 1/(1 + (|F|/strong_force)^2), and those
        of structures whose virial per atom is beyond strong_force times 1 Å likewise, so that structures pushed
        together teach repulsion without taking over.  None: all count alike.

    Source: Rottenberg 2023, Eqs. (2.20)-(2.21).
    """

    energy: tuple = (0.02, 1.0)
    forces: tuple = (1000.0, 1.0)
    virial: tuple = (0.0, 0.0)
    strong_force: float | None = None
    moves_atoms: ClassVar = True
    sources: ClassVar = {
        "energy_eV_per_atom": ("energy",),
        "forces_eV_per_A": ("forces",),
        "virial_eV_per_atom": ("virial",),
    }

    @property
    def terms(self):
        ends = {"energy": self.energy, "forces": self.forces, "virial": self.virial}
        return {name: (name,) for name, pair in ends.items() if any(pair)}

    @property
    def labels(self):
        return tuple(self.terms)

    def __call__(self, model, batch, ratio):
        labels = [name for name in self.labels if name in batch.labels]
        energy, derivatives = energy_and_derivatives(model, batch, labels)
        n_atoms = batch.system.n_atoms.to(energy.dtype)
        atomic, whole = self.weights(batch, n_atoms)
        loss, errors = energy.new_zeros(()), {}
        if "energy" in labels:
            mine, n, weight = (batch.matching("energy", column) for column in (energy, n_atoms, whole))
            error = (mine - batch.labels["energy"]) ** 2
            loss = loss + prefactor(self.energy, ratio) * (weight * error / n).mean()
            errors["energy_eV_per_atom"] = (error / n**2).mean()
        if "forces" in labels:
            error = ((batch.matching("forces", derivatives["forces"]) - batch.labels["forces"]) ** 2).mean(dim=1)
            weighted = _of_all_atoms(batch, "forces", batch.matching("forces", atomic) * error)
            of_structures = batch.system.sum_per_system(weighted) / n_atoms
            loss = loss + prefactor(self.forces, ratio) * of_structures[batch.partial.get("forces", ...)].mean()
            errors["forces_eV_per_A"] = error.mean()
        if "virial" in labels:
            mine, n, weight = (batch.matching("virial", column) for column in (derivatives["virial"], n_atoms, whole))
            error = ((mine - batch.labels["virial"]) ** 2).mean(dim=(1, 2))
            loss = loss + prefactor(self.virial, ratio) * (weight * error / n).mean()
            errors["virial_eV_per_atom"] = (error / n**2).mean()
        return loss, errors

    def weights(self, batch, n_atoms):
        """Weights of the atoms [N] and of the structures [B], from forces and virials of the labels; 1 without them."""
        atomic = torch.ones_like(batch.system.batch, dtype=n_atoms.dtype)
        if self.strong_force is None:
            return atomic, torch.ones_like(n_atoms)
        if "forces" in batch.labels:
            squares = _of_all_atoms(batch, "forces", (batch.labels["forces"] ** 2).sum(dim=1))
            atomic = atomic / (1 + squares / self.strong_force**2)
        if "virial" in batch.labels:
            squares = (
                _of_all_structures(batch, "virial", (batch.labels["virial"] ** 2).sum(dim=(1, 2)) / 3) / n_atoms**2
            )
            atomic = atomic / (1 + squares / self.strong_force**2)[batch.system.batch]
        return atomic, batch.system.sum_per_system(atomic) / n_atoms


def _of_all_structures(batch, name, values):
    """``values`` of the structures with the label as a Tensor of all structures, zero for the others."""
    if name not in batch.partial:
        return values
    return values.new_zeros(batch.system.n_systems).index_copy(0, batch.partial[name].nonzero()[:, 0], values)


def _of_all_atoms(batch, name, values):
    """``values`` of the atoms with the label as a Tensor of all atoms, zero for the others."""
    if name not in batch.partial:
        return values
    rows = batch.partial[name][batch.system.batch].nonzero()[:, 0]
    return values.new_zeros(len(batch.system.batch), *values.shape[1:]).index_copy(0, rows, values)


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
    the width of the energy window; with atomic = 0 it needs no ADOS, only the total DOS.  The total is compared with
    the sum of the ADOS where a structure has one, else with its total DOS.

    Source: Zeng et al. 2022, Eq. (2); cumulative term as in Ben Mahmoud et al. 2020.
    """

    atomic: float = 1.0
    total: float = 0.0
    cumulative: float = 0.0
    moves_atoms: ClassVar = False
    sources: ClassVar = {"ados_per_eV": ("ados",), "dos_per_atom_eV": ("ados", "dos")}

    @property
    def terms(self):
        found = {"atomic": ("ados",)} if self.atomic else {}
        return found | {
            name: ("ados", "dos") if self.atomic else ("dos",)
            for name in ("total", "cumulative")
            if getattr(self, name)
        }

    @property
    def labels(self):
        return tuple(dict.fromkeys(sum(self.terms.values(), ())))

    def __call__(self, model, batch, ratio):
        prediction = batch.predict(model, "dos")
        step = model.heads["dos"].energies.diff().mean()
        loss, errors = prediction.new_zeros(()), {}
        difference, total, n_atoms = summed_errors(batch, prediction, "ados", "dos")
        if difference is not None:
            square = (difference**2).mean()
            loss, errors["ados_per_eV"] = loss + self.atomic * square, square
        if total is not None:
            total = total / n_atoms[:, None]
            errors["dos_per_atom_eV"] = (total**2).mean()
            states = (total.cumsum(dim=1) * step) ** 2
            loss = loss + self.total * errors["dos_per_atom_eV"] + self.cumulative * states.mean()
        return loss, errors


def summed_errors(batch, prediction, atomic, total):
    """(prediction - label of the atoms [n, ...], of sums over structures [b, ...], numbers of atoms [b]) of those atoms
    and structures that have one of the labels, by atom and by structure, which are named; None where there are none.

    Sums of the labels by atom go before those by structure.
    """
    system, parts, kept = batch.system, [], []
    n_atoms, difference = system.n_atoms.to(prediction.dtype), None
    if atomic in batch.labels:
        difference = batch.matching(atomic, prediction) - batch.labels[atomic]
        chosen = batch.partial.get(atomic, slice(None))
        parts.append(system.sum_per_system(_of_all_atoms(batch, atomic, difference))[chosen])
        kept.append(n_atoms[chosen])
    if total in batch.labels:
        chosen = batch.has(total) & ~batch.has(atomic)
        if bool(chosen.any()):
            parts.append(system.sum_per_system(prediction)[chosen] - batch.labels[total][chosen[batch.has(total)]])
            kept.append(n_atoms[chosen])
    if not parts:
        return difference, None, None
    return difference, *(torch.cat(column) if len(column) > 1 else column[0] for column in (parts, kept))


@dataclass(frozen=True)
class VectorLoss:
    """Mean squares over the components of the vectors of centres, and of their sum over a structure per centre.

    atomic, total : weights; with atomic = 0 it needs no atomic_dipole, only summed_dipole.  The total is compared with
    the sum of the vectors where a structure has them, else with its summed_dipole.

    Source: Zhang et al. 2020, text before Eq. (6).
    """

    atomic: float = 1.0
    total: float = 0.0
    moves_atoms: ClassVar = False
    quantity: ClassVar = "dipole"
    label: ClassVar = {"atomic": "atomic_dipole", "total": "summed_dipole"}
    unit: ClassVar = "A"

    @property
    def sources(self):
        return {
            f"total_{self.unit}_per_centre": tuple(self.label.values()),
            f"atomic_{self.unit}": (self.label["atomic"],),
        }

    @property
    def terms(self):
        both = tuple(self.label.values())
        found = {"atomic": both[:1]} if self.atomic else {}
        return found | ({"total": both if self.atomic else both[1:]} if self.total else {})

    @property
    def labels(self):
        return tuple(dict.fromkeys(sum(self.terms.values(), ())))

    def __call__(self, model, batch, ratio):
        atomic, total, n_centers = centre_errors(model, batch, self.quantity, self.label)
        loss, squares = batch.system.positions.new_zeros(()), {}
        if total is not None:
            square = (total.flatten(1) / n_centers.clamp(min=1)[:, None]).square().mean()
            loss, squares[f"total_{self.unit}_per_centre"] = self.total * square, square
        if atomic is not None and len(atomic):
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
    """(prediction - label of the centres [C, ...], of the sum over each structure [B, ...], numbers of centres [B]) of
    those that have one of the labels.

    label : dict of str, the "atomic" label and the "total" one

    None where there are none.  Tensors are compared with the symmetric part of their labels.
    """
    if quantity == "polarizability":
        batch = replace(
            batch,
            labels={name: (value + value.mT) / 2 for name, value in batch.labels.items() if name in label.values()},
        )
    is_center = model.is_center(batch.system.numbers, quantity)
    atomic, total, _ = summed_errors(batch, batch.predict(model, quantity), label["atomic"], label["total"])
    if atomic is not None:
        atomic = atomic.index_select(0, batch.matching(label["atomic"], is_center).nonzero()[:, 0])
    counts = batch.system.sum_per_system(is_center.to(batch.system.positions.dtype))
    chosen = [batch.has(label["atomic"]), batch.has(label["total"]) & ~batch.has(label["atomic"])]
    return atomic, total, torch.cat([counts[mask] for mask in chosen])
