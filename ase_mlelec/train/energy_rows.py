"""Rows of the least-squares problem of an energy that is linear in its weights: energies, forces and virials."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.data.batches import Batch
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.train.losses import EnergyLoss, energy_and_derivatives

COMPONENTS = {"energy": 1, "forces": 3, "virial": 9}  # rows of a structure, or of an atom for forces
Rows = dict[str, tuple[Tensor, Tensor]]


def weighted_rows(model: Model, batch: Batch, loss: EnergyLoss) -> Rows:
    """Rows [n, P] and residuals [n] of the labels of a batch, by label, for prefactors of 1 in ``loss``.

    The sum of the squares of ``rows @ change - residuals`` is the loss of the changed model times the number of
    structures.
    """
    found = plain_rows(model, batch, [name for name in loss.labels if name in batch.labels])
    roots = roots_of_weights(batch, loss, found)
    return {name: (roots[name][:, None] * rows, roots[name] * rest) for name, (rows, rest) in found.items()}


def roots_of_weights(batch: Batch, loss: EnergyLoss, labels: Iterable[str]) -> dict[str, Tensor]:
    """Factors [n] of ``plain_rows`` in ``weighted_rows``, by label."""
    n_atoms = batch.system.n_atoms.to(batch.weights)
    atomic, whole = loss.weights(batch, n_atoms)
    weights = {
        "energy": whole / n_atoms,
        "forces": atomic / n_atoms.index_select(0, batch.system.batch),
        "virial": whole / n_atoms,
    }
    return {
        name: (batch.matching(name, batch.scaled(name, weights[name])) / n).sqrt().repeat_interleave(n)
        for name in labels
        for n in [COMPONENTS[name]]
    }


def plain_rows(model: Model, batch: Batch, labels: Sequence[str]) -> Rows:
    """Derivatives [n, P] of the labeled values with respect to the weights, and labels - values [n], by label."""
    columns, derivatives = _columns(model, batch, labels)
    energy, found = _values(model, batch, labels)
    rows = {}
    for name in labels:
        n = COMPONENTS[name]
        mine = batch.matching(name, energy if name == "energy" else found[name])
        of_weights = (columns if name == "energy" else derivatives[name]).unflatten(0, (-1, n))
        rest = (batch.labels[name] - mine.detach()).reshape(-1)
        rows[name] = batch.matching(name, of_weights).flatten(0, 1), rest
    return rows


def _values(model, batch, labels):
    """Energies [B] and derivatives of the model as it is; without a run of the model where its last layer is zero."""
    last, system = model.heads["energy"].nets.last, batch.system
    more = model.core is not None or model.long_range is not None
    if more or any(bool(part.any()) for layer in last for part in layer.parameters()):
        return energy_and_derivatives(model, batch, labels)
    energy = system.sum_per_system(model.heads["energy"].reference[model.species_index(system.numbers)])
    zeros = {"forces": torch.zeros_like(system.positions), "virial": torch.zeros_like(system.cell)}
    return energy, {name: zeros[name] for name in labels if name != "energy"}


@torch.no_grad()
def _columns(model, batch, labels):
    """Derivatives with respect to the weights: energies [B, P], and dict of forces [3 N, P] and virials [9 B, P]."""
    nets, descriptor = model.heads["energy"].nets, model.descriptor_of("energy")
    system, edges = batch.system, batch.edges()
    environment = descriptor(system, edges)
    species = environment.species
    x = nets.scale * (environment.features - nets.shift[species]) * nets.inverse[species]
    own = torch.nn.functional.one_hot(species, len(nets.last)).to(x)
    columns = [*(system.sum_per_system(x * one[:, None]) for one in own.T), nets.scale * system.sum_per_system(own)]
    derivatives = {name: [] for name in labels if name != "energy"}
    factors = -nets.scale * nets.inverse
    for part in _structures(system, edges) if derivatives else ():
        changes = descriptor.summed_gradients(*part, strain="virial" in derivatives).mul_(factors).flatten(1)
        changes = torch.nn.functional.pad(changes, (0, own.shape[1]))
        ends = {"forces": slice(3 * len(part[0].numbers)), "virial": slice(-9, None)}
        for name, rows in derivatives.items():
            rows.append(changes[ends[name]])
    joined = {name: rows[0] if len(rows) == 1 else torch.cat(rows) for name, rows in derivatives.items()}
    return torch.cat(columns, dim=1), joined


def _structures(system, edges):
    """Iterate over the structures of a batch, each as (System, Edges)."""
    ends = [0, *system.n_atoms.cumsum(0).tolist()]
    bounds = torch.searchsorted(edges.center, torch.tensor(ends, device=edges.center.device)).tolist()
    for k in range(system.n_systems):
        atoms, rows = slice(ends[k], ends[k + 1]), slice(bounds[k], bounds[k + 1])
        yield (
            System(
                system.positions[atoms],
                system.numbers[atoms],
                system.cell[k : k + 1],
                system.pbc[k : k + 1],
                system.batch[atoms] - k,
            ),
            edges.part(atoms, rows),
        )


def n_rows(frames: Frames | Sequence[Frame], loss: EnergyLoss) -> int:
    """Number of label components of all frames."""
    return sum(np.size(frame.labels[name]) for frame in frames for name in loss.labels if name in frame.labels)


def largest_batch(frames: Frames, loss: EnergyLoss, batch_size: int) -> int:
    """Largest number of rows that a batch can have."""
    return sum(sorted(n_rows([frame], loss) for frame in frames)[-batch_size:])
