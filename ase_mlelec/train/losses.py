"""Losses of quantities of atoms and their sums.

A loss is called with a model, a batch and the learning-rate ratio, and returns (value, dict of mean squared errors).
Each term is a mean over the structures of the batch, or over their atoms, that have the label; without such structures
the term is left out. Attributes of a loss are ``labels``, the names of all its labels; ``terms``, the labels of each term
with a weight, one of which suffices; ``sources``, the labels behind each error; and ``moves_atoms``, whether the loss
needs gradients with respect to the geometry. Without these, a fixed descriptor is evaluated once for the whole training.
A loss that a configuration can name has the weights of its terms as fields of a dataclass, and a ``quantity``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ase_mlelec.data.batches import Batch
from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors.fixed import GeometryGradient
from ase_mlelec.heads import ScalarHead
from ase_mlelec.heads.slope import value_and_slope
from ase_mlelec.model import Model
from ase_mlelec.quantities import LOSSES, QUANTITIES
from ase_mlelec.train.slopes import slopes_of_sums


def missing_terms(loss: Callable, frames: Frames) -> dict:
    """Terms of a loss for which no frame has a label, dict by term of the possible labels."""
    counts = frames.counts
    return {
        term: names for term, names in getattr(loss, "terms", {}).items() if not any(name in counts for name in names)
    }


def check_terms(loss: Callable, frames: Frames) -> None:
    """Raise ValueError where no frame has a label for one of the terms of a loss."""
    for term, names in missing_terms(loss, frames).items():
        raise ValueError(
            f"no label {' or '.join(map(repr, names))} in any of {len(frames)} frames, they have "
            f"{', '.join(frames.counts) or 'none'}; add it or take its term out of the loss: '{term}'"
        )


def prefactor(ends: tuple[float, float], ratio: float) -> float:
    """p = p_limit (1 - ratio) + p_start ratio, with ratio = present/first learning rate.

    References
    ----------
    Rottenberg 2023, Eq. (2.21).
    """
    start, limit = ends
    return limit * (1 - ratio) + start * ratio


@dataclass(frozen=True)
class EnergyLoss:
    """Loss p_e/N dE^2 + p_f/(3N) sum ``|dF|^2`` + p_v/(9N) ``|dΞ|^2`` of energies, forces and virials.

    Each term is averaged over the structures of a batch that have its label.

    Attributes
    ----------
    energy, forces, virial : (start, limit) prefactors
        (0, 0) leaves the term and its label out.
    strong_force : float, eV/Å
        Errors of atoms and structures with strong forces have a smaller weight, 1/(1 + (``|F|/strong_force``)^2), and so
        have errors of structures with a virial per atom beyond strong_force times 1 Å. Compressed structures then teach
        repulsion without dominating the fit. None: all have the same weight.

    References
    ----------
    Rottenberg 2023, Eqs. (2.20)-(2.21).
    """

    energy: tuple = (0.02, 1.0)
    forces: tuple = (1000.0, 1.0)
    virial: tuple = (0.0, 0.0)
    strong_force: float | None = None
    quantity: ClassVar = "energy"
    moves_atoms: ClassVar = True
    can_be_shared: ClassVar = True  # among processes, as all its means are multiplied by Batch.share
    sources: ClassVar = {
        "energy_eV_per_atom": ("energy",),
        "forces_eV_per_A": ("forces",),
        "virial_eV_per_atom": ("virial",),
    }

    @property
    def terms(self) -> dict:
        ends = {"energy": self.energy, "forces": self.forces, "virial": self.virial}
        return {name: (name,) for name, pair in ends.items() if any(pair)}

    @property
    def labels(self) -> tuple:
        return tuple(self.terms)

    def __call__(self, model: Model, batch: Batch, ratio: float) -> tuple:
        labels = [name for name in self.labels if name in batch.labels]
        energy, derivatives = energy_and_derivatives(model, batch, labels)
        n_atoms = batch.system.n_atoms.to(energy.dtype)
        atomic, whole = self.weights(batch, n_atoms)
        loss, errors = energy.new_zeros(()), {}
        if "energy" in labels:
            columns = energy, n_atoms, batch.scaled("energy", whole)
            mine, n, weight = (batch.matching("energy", column) for column in columns)
            error = (mine - batch.labels["energy"]) ** 2
            loss = loss + prefactor(self.energy, ratio) * batch.mean("energy", weight * error / n)
            errors["energy_eV_per_atom"] = batch.mean("energy", error / n**2)
        if "forces" in labels:
            error = ((batch.matching("forces", derivatives["forces"]) - batch.labels["forces"]) ** 2).mean(dim=1)
            weight = batch.matching("forces", batch.scaled("forces", atomic))
            weighted = _of_all_atoms(batch, "forces", weight * error)
            of_structures = batch.system.sum_per_system(weighted) / n_atoms
            of_structures = of_structures[batch.partial.get("forces", ...)]
            loss = loss + prefactor(self.forces, ratio) * batch.mean("forces", of_structures)
            errors["forces_eV_per_A"] = batch.mean("forces", error, of_atoms=True)
        if "virial" in labels:
            columns = derivatives["virial"], n_atoms, batch.scaled("virial", whole)
            mine, n, weight = (batch.matching("virial", column) for column in columns)
            error = ((mine - batch.labels["virial"]) ** 2).mean(dim=(1, 2))
            loss = loss + prefactor(self.virial, ratio) * batch.mean("virial", weight * error / n)
            errors["virial_eV_per_atom"] = batch.mean("virial", error / n**2)
        return loss, errors

    def weights(self, batch: Batch, n_atoms: Tensor) -> tuple:
        """Weights of the atoms [N] and structures [B]: configuration weights, reduced for strong forces."""
        atomic = batch.weights[batch.system.batch]
        if self.strong_force is None:
            return atomic, batch.weights
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
    """Extend ``values`` of the structures with a label to all structures, with zeros for the rest."""
    if name not in batch.partial:
        return values
    return values.new_zeros(batch.system.n_systems).index_copy(0, batch.partial[name].nonzero()[:, 0], values)


def _of_all_atoms(batch, name, values):
    """Extend ``values`` of the atoms with a label to all atoms, with zeros for the rest."""
    if name not in batch.partial:
        return values
    rows = batch.partial[name][batch.system.batch].nonzero()[:, 0]
    return values.new_zeros(len(batch.system.batch), *values.shape[1:]).index_copy(0, rows, values)


def energy_and_derivatives(model: Model, batch: Batch, quantities: Sequence[str] = ("forces", "virial")) -> tuple:
    """Energies [B], eV, and dict of the requested forces [N, 3], eV/Å, and virials [B, 3, 3], eV.

    Under ``torch.no_grad()`` the graph through the derivatives is not kept, which halves time and memory. A long range of
    the model is added as a constant: it has no parameters of its own, and those of the centroids are not trained by it.
    """
    energy, derivatives = _short_range(model, batch, quantities)
    if model.long_range is None:
        return energy, derivatives
    terms = model.long_range.terms(model, batch.system, batch.edges())
    added = {"forces": terms.forces, "virial": terms.virials}
    energy = energy + batch.system.sum_per_system(terms.energies).to(energy.dtype)
    return energy, {name: value + added[name].to(value.dtype) for name, value in derivatives.items()}


def _short_range(model, batch, quantities):
    """Energies and derivatives without the long range."""
    training = torch.is_grad_enabled()
    parts = batch.parts(model, "energy")
    if parts:
        with torch.enable_grad():
            energy, gradients = _of_parts(model, batch, parts, quantities, training)
        return energy if training else energy.detach(), {name: -g for name, g in gradients.items()}
    with torch.enable_grad():
        positions, strain, system, edges = batch.strained_edges()
        energy = system.sum_per_system(model(system, edges, ("energy",))["energy"])
        leaves = {name: leaf for name, leaf in (("forces", positions), ("virial", strain)) if name in quantities}
        gradients = torch.autograd.grad(energy.sum(), list(leaves.values()), create_graph=training) if leaves else ()
    return energy if training else energy.detach(), {name: -g for name, g in zip(leaves, gradients)}


def _of_parts(model, batch, parts, quantities, training):
    """(energies [B], dict of gradients by positions and strain) from moments; see ase_mlelec.descriptors.fixed."""
    owner, n_systems = batch.system.batch, batch.system.n_systems
    energy, totals = batch.system.positions.new_zeros(n_systems), {}
    for part in parts:
        moments = part.moments.detach().requires_grad_(True)
        environment, head = part.environment(moments), model.heads["energy"]
        both = value_and_slope(head.nets, part.k, environment.features) if type(head) is ScalarHead else None
        values = head(environment, None) if both is None else both[0]
        energy = energy.index_add(0, owner[part.slots.atoms], values)
        if {"forces", "virial"} & set(quantities):
            ends = (values.sum(), moments) if both is None else (environment.features, moments, both[1])
            (slope,) = torch.autograd.grad(*ends, create_graph=training)
            found = GeometryGradient.apply(slope, part.slots, part.law, owner, n_systems)
            for name, gradient in zip(("forces", "virial"), found):
                totals[name] = totals[name] + gradient if name in totals else gradient
    if "forces" in totals:
        totals["forces"] = totals["forces"].T
    return energy, {name: gradient for name, gradient in totals.items() if name in quantities}


@dataclass(frozen=True)
class AtomicLoss:
    """Loss of a quantity of atoms: mean squared errors of the atoms, and of their sums per atom with a value.

    Atoms with a value are the centers, see Model.is_center. A new quantity needs only a subclass with its name; units
    and labels come from its row in ase_mlelec.quantities.

    Attributes
    ----------
    atomic, total
        Weights; with atomic = 0 the loss needs labels of structures only. The total is compared with the sum of the
        labels of atoms, where a structure has these, or else with the label of the structure.
    """

    atomic: float = 1.0
    total: float = 0.0
    moves_atoms: ClassVar = False
    can_be_shared: ClassVar = True
    of_structures: ClassVar = True  # whether sums over structures have errors, too
    quantity: ClassVar[str]
    errors: ClassVar[tuple[str, ...]] = ("atomic", "total_per_atom")  # names of the mean squared errors

    @property
    def sources(self) -> dict:
        row = QUANTITIES[self.quantity]
        return dict(zip(self.errors, ((row.atomic,), (row.atomic, row.total))))

    @property
    def terms(self) -> dict[str, tuple[str, ...]]:
        row, weights = QUANTITIES[self.quantity], {key: value for key, value in vars(self).items() if value}
        either = (row.atomic, row.total) if self.atomic else (row.total,)
        sums = {term: tuple(filter(None, either)) for term in weights if term != "atomic" and row.extensive}
        return ({"atomic": (row.atomic,)} if self.atomic and row.atomic else {}) | sums

    @property
    def labels(self) -> tuple:
        return tuple(dict.fromkeys(sum(self.terms.values(), ())))

    def __call__(self, model: Model, batch: Batch, ratio: float) -> tuple:
        atomic, owners, total, structures = row_errors(model, batch, self.quantity)
        loss, squares = batch.system.positions.new_zeros(()), {}
        if atomic is not None and len(atomic):
            weights = batch.weights_of(QUANTITIES[self.quantity].atomic)
            share = batch.share(QUANTITIES[self.quantity].atomic, of="values")
            weighted, square = mean_squares(atomic, weights[owners])
            squares[self.errors[0]] = share * square
            loss = loss + share * self.atomic * weighted
        if total is not None:
            counts = batch.system.sum_per_system(model.is_center(batch.system.numbers, self.quantity).to(total.dtype))
            total = total.reshape(len(total), -1) / counts[structures].clamp(min=1)[:, None]
            weights = weights_of_sums(batch, self.quantity)[structures]
            share = batch.share(*self.sources[self.errors[1]], of="structures")
            weighted, square = mean_squares(total, weights)
            squares[self.errors[1]] = share * square
            loss = loss + share * (self.total * weighted + self.of_sums(model, total, weights))
        return loss, squares

    def of_sums(self, model: Model, errors: Tensor, weights: Tensor) -> Tensor | float:
        """Further terms of the errors of sums per atom [b, K] with weights [b]; here none."""
        return 0.0


@dataclass(frozen=True)
class SpectrumLoss(AtomicLoss):
    """Loss of densities of states: mean squared errors of the ADOS, of the DOS per atom, and of its integral.

    Attributes
    ----------
    atomic, total, cumulative
        Weights. With total = cumulative = 0 the loss is the square of the loss in the paper, divided by the width of the
        energy window. With atomic = 0 it needs only the total DOS. The total is compared with the sum of the ADOS, where
        a structure has one, or else with its total DOS.

    References
    ----------
    Zeng et al. 2022, Eq. (2); cumulative term as in Ben Mahmoud et al. 2020.
    """

    cumulative: float = 0.0
    quantity: ClassVar = "dos"
    errors: ClassVar[tuple[str, ...]] = ("ados_per_eV", "dos_per_atom_eV")

    def of_sums(self, model: Model, errors: Tensor, weights: Tensor) -> Tensor:
        step = model.heads[self.quantity].energies.diff().mean()
        return self.cumulative * mean_squares(errors.cumsum(dim=1) * step, weights)[0]


@dataclass(frozen=True)
class VectorLoss(AtomicLoss):
    """Loss of vectors: mean squared errors of the vectors, of their sums per center, and of the derivatives of the sums.

    Attributes
    ----------
    atomic, total
        Weights, see AtomicLoss.
    born
        Weight, Å^2, of the derivatives of the sums by the positions, which are Born charges over a charge.

    References
    ----------
    Zhang et al. 2020, text before Eq. (6).
    """

    born: float = 0.0
    quantity: ClassVar = "dipole"
    errors: ClassVar = ("atomic_A", "total_A_per_center", "slope")

    @property
    def moves_atoms(self) -> bool:  # type: ignore[override]  # only for derivatives
        return bool(self.born)

    @property
    def sources(self) -> dict:
        return super().sources | {self.errors[2]: (QUANTITIES[self.quantity].slopes,)}

    @property
    def terms(self) -> dict[str, tuple[str, ...]]:
        own = {"born": (QUANTITIES[self.quantity].slopes,)} if self.born else {}
        return {term: labels for term, labels in super().terms.items() if term != "born"} | own

    def __call__(self, model: Model, batch: Batch, ratio: float) -> tuple:
        loss, squares = super().__call__(model, batch, ratio)
        label = QUANTITIES[self.quantity].slopes
        if not self.born or label not in batch.labels:
            return loss, squares
        error = batch.matching(label, slopes_of_sums(model, batch, self.quantity)) - batch.labels[label]
        weights = batch.matching(label, batch.weights_of(label)[batch.system.batch])
        weighted, square = mean_squares(error, weights)
        share = batch.share(label, of="atoms")
        return loss + share * self.born * weighted, squares | {self.errors[2]: share * square}


@dataclass(frozen=True)
class TensorLoss(AtomicLoss):
    """Loss of symmetric tensors, as VectorLoss; the antisymmetric part of the labels is ignored."""

    quantity: ClassVar = "polarizability"
    errors: ClassVar = ("atomic_A3", "total_A3_per_center")


LOSSES.update((loss.quantity, loss) for loss in (EnergyLoss, SpectrumLoss, VectorLoss, TensorLoss))


def mean_squares(errors: Tensor, weights: Tensor) -> tuple:
    """(weighted mean square, mean square) of errors [n, ...] with weights [n], which need not add up to n."""
    squares = errors.square().reshape(len(errors), -1)
    return (weights[:, None] * squares).mean(), squares.detach().mean()


def weights_of_sums(batch: Batch, quantity: str) -> Tensor:
    """Weights [B] of the sums of a quantity over structures: of the labels by atom, where ``row_errors`` takes these."""
    row = QUANTITIES[quantity]
    return torch.where(batch.has(row.atomic), batch.weights_of(row.atomic), batch.weights_of(row.total))


def row_errors(model: Model, batch: Batch, quantity: str) -> tuple:
    """Errors, prediction - label, of atoms and of sums over structures.

    Returns (errors of atoms [n, ...], numbers of their structures [n], errors of sums [b, ...], numbers of the structures
    [b]), for the atoms with a value and a label and for the structures with a label; None where there are none. Sums of
    labels by atom take precedence over labels of structures. Symmetric quantities are compared with the symmetric part of
    their labels.
    """
    row, system, prediction = QUANTITIES[quantity], batch.system, batch.predict(model, quantity)
    labels = {name: batch.labels[name] for name in (row.atomic, row.total) if name in batch.labels}
    if row.symmetric:
        labels = {name: (label + label.mT) / 2 for name, label in labels.items()}
    atomic, owners, sums, structures = None, None, [], []
    if row.atomic in labels:
        atomic = batch.matching(row.atomic, prediction) - labels[row.atomic]
        owners = batch.matching(row.atomic, system.batch)
        structures.append(batch.has(row.atomic).nonzero()[:, 0])
        sums.append(system.sum_per_system(_of_all_atoms(batch, row.atomic, atomic))[structures[0]])
        if hasattr(model.heads[quantity], "centers"):
            is_center = batch.matching(row.atomic, model.is_center(system.numbers, quantity))
            atomic, owners = (part.index_select(0, is_center.nonzero()[:, 0]) for part in (atomic, owners))
    if row.total in labels:
        chosen = batch.has(row.total) & ~batch.has(row.atomic)
        if bool(chosen.any()):
            structures.append(chosen.nonzero()[:, 0])
            sums.append(system.sum_per_system(prediction)[chosen] - labels[row.total][chosen[batch.has(row.total)]])
    return (atomic, owners, *(map(torch.cat, (sums, structures)) if sums else (None, None)))
