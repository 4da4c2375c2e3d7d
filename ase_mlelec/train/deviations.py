"""Errors and standard deviations of the labels of a head, structure by structure."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.data.batches import Batch, Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.train.last_layer import BATCH, batch_by_batch
from ase_mlelec.train.log import Log
from ase_mlelec.train.losses import energy_and_derivatives, row_errors
from ase_mlelec.train.slopes import slopes_of_sums
from ase_mlelec.uncertainty import (
    contributions,
    deviations_of_atoms,
    deviations_of_forces,
    deviations_of_stress,
    deviations_of_sums,
    leverage_around,
    scale_of,
    slopes_of_energies,
    summed,
    summed_floor,
)
from ase_mlelec.uncertainty.scales import log_likelihood

N_DRAWS, PRIOR = 8, 4.0  # members from which bars of derivatives follow; weight of their smooth estimate, in members
TOLERANCE = 0.01  # differences of log likelihoods that mean nothing
FLOORS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)  # in units of the root mean square of the deviations
VOIGT = [0, 4, 8, 5, 2, 1]  # places in a flat 3x3 matrix
FULL = [[0, 5, 4], [5, 1, 3], [4, 3, 2]]  # places in Voigt order


class Deviations(NamedTuple):
    """Errors of a label with what their standard deviations are made of, arrays of equal shape.

    Attributes
    ----------
    errors : array
        Prediction minus label.
    posterior : array
        Standard deviation from the posterior, without scale and floor.
    floor : array
        What a floor of one adds to it, in quadrature.
    """

    errors: np.ndarray
    posterior: np.ndarray
    floor: np.ndarray

    def total(self, floor: float) -> np.ndarray:
        """Standard deviations with a floor, without a scale."""
        return np.hypot(self.posterior, floor * self.floor)

    def growth_to(self, error: float) -> float:
        """Factor with which the mean absolute error, per atom for totals, would be ``error``."""
        return error / max(float(np.mean(np.abs(self.errors) / self.floor**2)), 1e-300)

    def of_some_size(self, share: float) -> "Deviations":
        """Without the deviations that are below a share of their root mean square."""
        chosen = self.posterior > share * np.sqrt(np.mean(self.posterior**2))
        return Deviations(*(part[chosen] for part in self))


def errors_and_deviations(model: Model, name: str, frames: Frames) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Errors and standard deviations of all quantities of a head on labeled frames.

    Parameters
    ----------
    model : Model
        With a posterior of the head.
    name : str
        Name of the head.
    frames : Frames

    Returns
    -------
    dict by label of (errors, standard deviations)
        Arrays of equal shape; one row for every atom or structure with the label.
    """
    posterior = model.posteriors[name]
    return {
        label: (found.errors, posterior.scale(label) * found.total(posterior.floor(label)))
        for label, found in deviations(model, name, frames).items()
    }


def deviations(model: Model, name: str, frames: Frames, *, progress: bool | Log = False) -> dict[str, Deviations]:
    """Errors of all quantities of a head on labeled frames, with the parts of their standard deviations, by label."""
    quantity = QUANTITIES[name]
    if quantity.gradients and model.has_linear_energy:
        # its features are many, and compiled loops save time and memory
        model = model.for_evaluation()
    batches = Batches.for_model(model, frames, quantity.labels).with_label(*quantity.labels)
    found: dict[str, list] = {}
    for batch in batch_by_batch(batches, BATCH, progress, f"error bars: errors of the {name} of"):
        for label, *parts in _of_energy(model, batch) if quantity.gradients else _of_atoms(model, batch, quantity):
            found.setdefault(label, []).append(
                [part.double().cpu().numpy() for part in torch.broadcast_tensors(*parts)]
            )
    return {label: Deviations(*map(np.concatenate, zip(*parts))) for label, parts in found.items()}


@torch.no_grad()
def _of_atoms(model, batch, quantity) -> Iterator:
    """(label, errors, deviations, floors) of the atoms and of the sums of a batch."""
    head, posterior = model.heads[quantity.name], model.posteriors[quantity.name]
    of = contributions(head, posterior, model.descriptor_of(quantity.name)(batch.system, batch.edges()))
    bare = of._replace(z=torch.zeros_like(of.z))
    atomic, _, sums, structures = row_errors(model, batch, quantity.name)
    if atomic is not None and len(atomic):
        rows = batch.matching(quantity.atomic, torch.arange(len(of.nets), device=of.nets.device))
        rows = rows[of.nets[rows] >= 0]
        yield quantity.atomic, atomic, deviations_of_atoms(of)[rows], deviations_of_atoms(bare, floor=1.0)[rows]
    if sums is not None:
        batches = batch.system.batch, batch.system.n_systems
        every = deviations_of_sums(summed(of, *batches), of)
        floors = deviations_of_sums(summed(bare, *batches), of, noise=summed_floor(of, 1.0, *batches))
        yield quantity.total, sums, every[structures], floors[structures]
    if quantity.slopes in batch.labels:
        label = quantity.slopes
        found = slopes_of_sums(model, batch, quantity.name), slope_deviations(model, batch, quantity.name)
        slopes, every = (batch.matching(label, part) for part in found)
        yield label, slopes - batch.labels[label], every, torch.zeros_like(every)


def slope_deviations(model: Model, batch: Batch, name: str) -> Tensor:
    """Standard deviations [N, 3, 3], without scale, of the derivatives of sums of vectors; see ``slopes_of_sums``.

    The mean squares over a few members are joined with their mean over the elements of the atom, as PRIOR more members.
    """
    head, posterior, found = model.heads[name], model.posteriors[name], []
    with torch.enable_grad():
        positions, _, system, edges = batch.strained_edges()
        of = contributions(head, posterior, model.environment(name, system, edges))
        for draw in posterior.draws(N_DRAWS):
            sums = torch.einsum("ck,kq,cqa->a", of.z, draw.to(of.z), of.values)
            slopes = [torch.autograd.grad(each, positions, retain_graph=True)[0] for each in sums]
            found.append(torch.stack(slopes, dim=1))
    squares = torch.stack(found).square().mean(dim=0)
    smooth = squares.mean(dim=(1, 2), keepdim=True)
    return ((N_DRAWS * squares + PRIOR * smooth) / (N_DRAWS + PRIOR)).sqrt()


def _of_energy(model, batch) -> Iterator:
    """(label, errors, deviations, floors) of energies, forces and virials of a batch."""
    labels = [name for name in ("energy", "forces", "virial") if name in batch.labels]
    with torch.no_grad():
        energy, found = energy_and_derivatives(model, batch, labels)
    spread = energy_deviations(model, batch)
    root = batch.system.n_atoms.to(energy.dtype).sqrt()
    floors = {"energy": root, "forces": torch.ones_like(spread["forces"]), "virial": root[:, None, None]}
    for label, value in {"energy": energy, **found}.items():
        if label in labels:
            floor = floors[label].expand_as(spread[label])
            own = (batch.matching(label, part) for part in (value, spread[label], floor))
            value, deviation, floor = own
            yield label, value - batch.labels[label], deviation, floor


def energy_deviations(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Standard deviations, without scales and floors, of energies [B], forces [N, 3] and virials [B, 3, 3], by name."""
    head, posterior = model.heads["energy"], model.posteriors["energy"]
    with torch.enable_grad():
        positions, strain, system, edges = batch.strained_edges()
        environment = model.descriptor_of("energy")(system, edges).keeping()
        of = contributions(head, posterior, environment)
        inputs, nets = head.last_inputs(environment)
        cotangents = slopes_of_energies(posterior, nets).to(inputs)
        slopes = [
            torch.autograd.grad(inputs, (positions, strain), each, retain_graph=k + 1 < len(cotangents))
            for k, each in enumerate(cotangents)
        ]
    forces, virials = (torch.stack(parts) for parts in zip(*slopes))
    with torch.no_grad():
        around = leverage_around(of.z.square().sum(dim=1), edges, model.descriptor.cutoff)
        virial = deviations_of_stress(virials.flatten(2)[:, :, VOIGT])[:, FULL]
        sums = deviations_of_sums(summed(of, system.batch, system.n_systems), of)
        return {"energy": sums, "forces": deviations_of_forces(forces, around, system.batch), "virial": virial}


def floor_and_scale(errors, found):
    """The smallest floor under which the errors are about as likely as can be, and the scale that goes with it."""
    size = np.sqrt(np.mean(found.posterior**2) / max(np.mean(found.floor**2), 1e-300))
    tried = []
    for floor in FLOORS:
        total = found.total(floor * size)
        scale = scale_of(errors, total)
        tried.append((log_likelihood(errors, scale * total), floor * size, scale))
    least = max(likelihood for likelihood, *_ in tried) - max(TOLERANCE, 1 / len(errors))
    return next((floor, scale) for likelihood, floor, scale in tried if likelihood >= least)
