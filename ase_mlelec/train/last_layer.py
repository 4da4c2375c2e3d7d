"""Rows of training data in the space of the last layer of a head: derivatives of labeled results by its weights.

The weights of all species, each followed by their constant, are one vector [P]. For energies there is a row for every
energy and for the forces along some random displacements of all atoms: on average over displacements their products
add up to those of all force components, at a cost that does not depend on the number of weights. For spectra, vectors
and tensors there is a row for every atom with a label, or for every sum where no atom has one. Where only derivatives of
sums are known, such as Born charges, there are rows of them along random displacements, of random components and outputs.
Where the last layer gives roots of spectra, the errors are those of the roots.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors.base import changes_along
from ase_mlelec.model import Model
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.train.log import Log
from ase_mlelec.train.losses import energy_and_derivatives, row_errors
from ase_mlelec.train.roots import linear_problem
from ase_mlelec.train.slopes import slopes_of_sums

BATCH = 8  # structures
ENOUGH = 4.0  # rows of forces for every weight, where there are as many
SPANNED = 4  # random moves for each coordinate: further ones are combinations of these
FEWEST = 4  # displacements of every structure


class Rows(NamedTuple):
    """Rows [n, P] of one label, their errors (prediction - label) [n, ...], and weights [n] of their squares."""

    label: str
    rows: Tensor
    errors: Tensor
    weights: Tensor


def n_weights(head: Any) -> int:
    """Number P of weights and constants of one output of the last layer of a head."""
    last = head.nets.last
    return len(last) * (last[0].in_features + 1)


def rows_of(
    model: Model, name: str, frames: Frames, *, n_moves: int | None = None, progress: bool | Log = False
) -> Iterator[Rows]:
    """Iterate over the rows of a quantity ``name`` of the labeled ``frames``, batch after batch.

    Parameters
    ----------
    n_moves : int, optional
        Random displacements of each structure, along which its forces, or derivatives of its sums, are looked at; default
        as many as the weights need.

    Raises
    ------
    ValueError
        For labels of a wrong shape or that are not finite, and for frames on another energy grid.
    InputError
        For species that the model does not know.
    """
    quantity = QUANTITIES[name]
    model, frames = linear_problem(model, name, frames)
    batches = Batches.for_model(model, frames, quantity.labels).with_label(*quantity.labels)
    title = f"error bars: rows of the {name} of"
    if not quantity.gradients:
        if not any({quantity.atomic, quantity.total} & {*labels} for labels in batches.labels):
            yield from _rows_of_slopes(model, name, batches, n_moves, progress)
            return
        atomic = any(quantity.atomic in labels for labels in batches.labels)
        for batch in batch_by_batch(batches, BATCH, progress, title):
            yield from _rows_of_atoms(model, batch, quantity, atomic)
        return
    generator, n_moves = torch.Generator().manual_seed(0), n_moves or _number_of_moves(model, name, batches)
    size = BATCH if model.heads[name].nets.hidden[0] else 1
    for batch in batch_by_batch(batches, size, progress, title):
        yield from _rows_of_energy(model, batch, n_moves, generator)


def _number_of_moves(model, name, batches):
    """Enough for all weights together, but no more than SPANNED times as many as the largest structure has coordinates."""
    wanted = int(ENOUGH * n_weights(model.heads[name]) / max(len(batches), 1))
    n_coordinates = 3 * max((len(system.numbers) for system in batches.systems), default=1)
    return max(FEWEST, min(wanted, SPANNED * n_coordinates))


def batch_by_batch(batches: Batches, size: int, progress: bool | Log, title: str) -> Iterator:
    """Iterate over all frames, ``size`` at a time, with lines that begin with ``title`` and a bar where they are told."""
    return Log.of(progress).each(
        batches.all_batches(size), len(batches), title, size=lambda batch: batch.system.n_systems
    )


def one_by_one(inputs: Tensor, nets: Tensor, n_nets: int) -> Tensor:
    """Rows [C, P] of the results of centers, from the inputs [C, H] of the last layer and the number [C] of their net."""
    own = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
    member = (nets[:, None] == torch.arange(n_nets, device=nets.device)).to(own)
    return (member[:, :, None] * own[:, None]).flatten(1)


@torch.no_grad()
def _rows_of_atoms(model, batch, quantity, atomic):
    """Rows of atoms, weighted by the size of their response, or of sums per center where no atom has a label."""
    head = model.heads[quantity.name]
    environment = model.descriptor_of(quantity.name)(batch.system, batch.edges())
    inputs, nets = head.last_inputs(environment)
    rows = one_by_one(inputs, nets, len(head.nets.last))
    errors, _, sums, structures = row_errors(model, batch, quantity.name)
    if atomic and errors is not None:
        chosen = batch.matching(quantity.atomic, torch.arange(len(nets), device=nets.device))
        chosen = chosen[nets[chosen] >= 0]
        yield Rows(quantity.atomic, rows[chosen], errors, _sizes(head, environment)[chosen])
    elif not atomic and sums is not None:
        n_centers = batch.system.sum_per_system((nets >= 0).to(rows))[structures].clamp(min=1)
        rows = batch.system.sum_per_system(rows)[structures] / n_centers[:, None]
        errors = sums / n_centers.reshape(-1, *[1] * (sums.ndim - 1))
        sizes = batch.system.sum_per_system(_sizes(head, environment))[structures] / n_centers
        yield Rows(quantity.total, rows, errors, sizes)


def _rows_of_slopes(model, name, batches, n_moves, progress):
    """Rows of derivatives of sums along random displacements, of random components of random outputs.

    On average their products add up to those of all derivatives by all outputs, and the products of their errors to those
    of all errors.
    """
    head, label = model.heads[name], QUANTITIES[name].slopes
    generator, n_moves = torch.Generator().manual_seed(0), n_moves or _number_of_moves(model, name, batches)
    for batch in batch_by_batch(batches, BATCH, progress, f"error bars: rows of the slopes of the {name} of"):
        with torch.no_grad():
            having = batch.has(label)[batch.system.batch].nonzero()[:, 0]
            wrong = batch.matching(label, slopes_of_sums(model, batch, name)) - batch.labels[label]
            errors = wrong.new_zeros(len(batch.system.numbers), 3, 3).index_copy(0, having, wrong)
        edges, chosen = batch.edges(), batch.has(label)
        root = (9 * batch.system.n_atoms.to(errors)).sqrt()
        for _ in range(n_moves):
            move, component, output = (
                torch.randn(shape, generator=generator, dtype=torch.float64).to(errors)
                for shape in ((len(errors), 3), 3, len(head.nets.scale))
            )
            vec = edges.vec.detach().requires_grad_(True)
            with torch.enable_grad():
                environment = model.environment(name, batch.system, edges.with_vec(vec))
                response = head.responses(environment, (head.nets.scale * output)[:, None])[:, 0] @ component
                inputs, nets = head.last_inputs(environment)
                values = response[:, None] * one_by_one(inputs, nets, len(head.nets.last))
                of_edges = move[edges.neighbor] - move[edges.center]
                (changes,) = changes_along([of_edges], batch.system.sum_per_system(values), vec)
            along = batch.system.sum_per_system(torch.einsum("nab,nb,a->n", errors, move, component))
            yield Rows(
                label,
                (changes.detach() / root[:, None])[chosen],
                (along / root)[chosen],
                batch.weights_of(label)[chosen] / n_moves,
            )


def _sizes(head, environment):
    """Mean squares [C] of the responses of centers to all outputs, in units of their scales."""
    if head.common_responses:
        return environment.features.new_ones(len(environment.species))
    return head.responses(environment, torch.diag(head.nets.scale)).flatten(1).square().mean(dim=1)


def _rows_of_energy(model, batch, n_moves, generator):
    """Rows of energies, in units of the root of the number of atoms, and of forces along random displacements."""
    labels = [name for name in ("energy", "forces") if name in batch.labels]
    with torch.no_grad():
        energy, found = energy_and_derivatives(model, batch, labels)
    system, edges, n_atoms = batch.system, batch.edges(), batch.system.n_atoms.to(energy.dtype)
    moves = torch.randn(n_moves, len(system.numbers), 3, generator=generator, dtype=torch.float64).to(energy)
    sums, changes = _sums_and_changes(model, system, edges, moves if "forces" in labels else moves[:0])
    if "energy" in labels:
        n, mine = batch.matching("energy", n_atoms), batch.matching("energy", energy)
        root = n.sqrt()
        rows = batch.matching("energy", sums) / root[:, None]
        yield Rows(
            "energy", rows, (mine - batch.labels["energy"]) / root, batch.matching("energy", batch.weights_of("energy"))
        )
    if "forces" in labels:
        errors = torch.zeros_like(system.positions)
        having = batch.has("forces")[system.batch]
        errors[having] = found["forces"][having] - batch.labels["forces"]
        along = torch.stack([system.sum_per_system((move * errors).sum(dim=1)) for move in moves])
        chosen, root = batch.has("forces"), (3 * n_atoms).sqrt()
        rows = (changes / root[:, None])[:, chosen].flatten(0, 1)
        weights = batch.weights_of("forces")[chosen].repeat(n_moves) / n_moves
        yield Rows("forces", rows, -(along / root)[:, chosen].flatten(), weights)


def _sums_and_changes(model, system, edges, moves):
    """Sums [B, P] of the inputs of the last layer over atoms, and their derivatives [T, B, P] along moves [T, N, 3]."""
    head, descriptor = model.heads["energy"], model.descriptor_of("energy")
    of_edges = moves[:, edges.neighbor] - moves[:, edges.center]
    linear = not head.nets.hidden[0]
    vec = edges.vec.detach().requires_grad_(len(moves) > 0 and not linear)
    with torch.enable_grad():
        inputs, nets = head.last_inputs(descriptor(system, edges.with_vec(vec)))
        sums = system.sum_per_system(one_by_one(inputs, nets, len(head.nets.last)))
        changes = changes_along(of_edges, sums, vec) if vec.requires_grad else []
    if linear and len(moves):  # of one structure; the descriptor may have a faster way
        gradients = descriptor.summed_gradients(system, edges, strain=False)
        own = torch.einsum("tc,csf->tsf", moves.flatten(1), gradients) * head.nets.inverse
        changes = [torch.nn.functional.pad(own, (0, 1)).flatten(1)[:, None]]
        return sums.detach(), torch.cat(changes).detach()
    return sums.detach(), torch.stack(changes).detach() if changes else sums.new_zeros(0, *sums.shape)


@torch.no_grad()
def products_of_atoms(model: Model, name: str, frames: Frames) -> Tensor:
    """Sum [P, P] over all atoms of the products of the inputs of the last layer."""
    total: Tensor | None = None
    for batch in Batches.for_model(model, frames, ()).all_batches(BATCH):
        inputs, nets = model.heads[name].last_inputs(model.descriptor_of(name)(batch.system, batch.edges()))
        rows = one_by_one(inputs, nets, len(model.heads[name].nets.last))[nets >= 0].double()
        total = rows.T @ rows if total is None else total.addmm_(rows.T, rows)
    if total is None:
        raise ValueError(f"{name}: no structures to make error bars from; give training data")
    return total
