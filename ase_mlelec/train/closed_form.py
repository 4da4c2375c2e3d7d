"""Closed form for spectra, vectors and tensors of atoms and their sums: drawn nets with a cross-validated ridge.

Sums of vectors may be known by their derivatives too, which are linear in the same unknowns (see ``slopes``).
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec import processes
from ase_mlelec.data.batches import Batch, Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.train.block_ridge import (
    BlockRidge,
    BlockSums,
    Choice,
    batches_of_blocks,
    blocks_of,
    geometric_mean,
    weighted_sum,
)
from ase_mlelec.train.drawn_nets import DrawnNet
from ase_mlelec.train.finite import Diverged, closed_form, explained_rows
from ase_mlelec.train.log import readable_errors
from ase_mlelec.train.losses import AtomicLoss, check_terms, row_errors, weights_of_sums
from ase_mlelec.train.slope_rows import SlopeSums, slope_rows, tell_of_order

WHAT = "the closed form of the {}"
REMEDY = "check the labels. Nothing was saved"
TOTALS = (0.0, 1.0, 8.0, 64.0)  # weights of sums over structures to compare, times the number of centers
OF_SLOPES = (1.0, 0.1, 10.0)  # weights of derivatives to compare, in units of the size of the targets


class Fitted(NamedTuple):
    """What is known after a fit.

    Attributes
    ----------
    about : dict of JSON types
        What was chosen, and the root mean square errors in cross-validation by the names of ``loss.errors``.
    take_in : callable() or None
        Call it to have the ``later`` structures fitted as well, with the same ridge and weights.
    """

    about: dict[str, Any]
    take_in: Callable[[], None] | None


def fit_closed_form(
    model: Model,
    frames: Frames,
    loss: AtomicLoss,
    *,
    later: Frames | None = None,
    weights_by_data: bool = True,
    batch_size: int = 4,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """Draw the hidden layer of a standardized head and fit its last layer to labels of atoms and of structures.

    The ridge has the smallest error in cross-validation over blocks of consecutive structures. Errors are the same mean
    squares as those of ``loss``: of atoms, of sums over structures per center, and of derivatives of sums. Each structure
    adds the labels that it has.

    Parameters
    ----------
    model : Model
        Trained in place; its head for ``loss.quantity`` has nets with one hidden layer. The descriptor does not change.
    frames : Frames
        In the order of trajectories, because consecutive structures are left out together.
    loss : AtomicLoss
    later : Frames, optional
        Structures that are held out for now: ``Fitted.take_in`` has them fitted too.
    weights_by_data : bool
        Whether cross-validation chooses the weights of sums and of derivatives relative to labels of atoms as well, by
        the smallest geometric mean of the errors, instead of the weights in ``loss``.
    batch_size : int
        Structures at a time; it affects memory alone.
    seed : int
        Seed of the drawn layer.
    tell : callable(line)
        Called with what was chosen, a line of text.

    Returns
    -------
    Fitted

    Raises
    ------
    ValueError
        For labels of a wrong shape or that are not finite, and frames without any label of the loss.
    Diverged
        When rows or the solution are not finite.
    """
    check_terms(loss, frames)
    name = loss.quantity
    row = QUANTITIES[name]
    what, head = WHAT.format(name), model.heads[name]
    batches = _batches(model, frames, row)
    for layer in head.nets.last:  # what is left to explain is the label less the bias
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    drawn = DrawnNet(model, name, batches, seed)
    with closed_form(what, REMEDY):
        tell(f"{name} in closed form: {head.widths[0]} drawn functions of the atoms of {len(batches)} structures")
        kinds = _sums(drawn, batches, batch_size)
        kinds[1] = kinds[1] if loss.of_structures else None
        regression = BlockRidge([kind for kind in kinds if kind is not None])
        tell(f"{name}: choosing the ridge by cross-validation, and solving")
        weights, score = _weights(kinds, loss, weights_by_data, batches, model)
        choice = regression.choose(weights, score)
        # before a solution is set: targets are what the present last layer leaves to explain
        then = None if later is None else _with_later(drawn, kinds, _batches(model, later, row), batch_size)
        _solve(drawn, regression, choice)
    found = _described(choice, kinds, loss, drawn, len(batches))
    tell(_in_words(name, found))
    tell_of_order(kinds, choice, tell)
    return Fitted(found, then and partial(_solve, drawn, then, choice))


def _batches(model, frames, row):
    return Batches.for_model(model, frames, row.labels).with_label(*row.labels)


def _solve(drawn, regression, choice):
    """Set the last layers to the solution with the ridge and the weights of a Choice."""
    solution = regression.solve(choice.ridge, choice.weights)
    if not bool(torch.isfinite(solution).all()):
        raise Diverged(f"{WHAT.format(drawn.name)} has no finite solution; {REMEDY}")
    # as drawn layers, spectra are rounded to single precision, by a millionth of their size: model files are smaller
    drawn.set_last(solution if drawn.directions else solution.float())


def _with_later(drawn, kinds, later, batch_size):
    """BlockRidge with the sums of more structures; None where these have no labels."""
    if not len(later):
        return None
    more = _sums(drawn, later, batch_size)
    pairs = [(mine, own) for mine, own in zip(kinds, more) if mine is not None]
    return BlockRidge([mine if own is None else mine.joined(own) for mine, own in pairs])


def _sums(drawn, batches, batch_size):
    """Sums of labels of atoms, of sums over structures and of derivatives: BlockSums, or None without such labels."""
    n_blocks = int(blocks_of(len(batches))[-1]) + 1
    kinds = [BlockSums(n_blocks), BlockSums(n_blocks), SlopeSums(n_blocks)]
    for block, chosen in processes.mine(batches_of_blocks(len(batches), batch_size)):
        for kind, (rows, targets) in zip(kinds, _checked_rows(drawn, batches, chosen)):
            kind.add(block, rows, targets)
    for kind in kinds:
        kind.load(processes.summed(kind.state()))
    return [kind if sum(kind.counts) else None for kind in kinds]


def _checked_rows(drawn, batches, chosen):
    """Rows and targets of structures, by kind of labels; raises Diverged where a number is not finite."""

    def rows_of(batch):
        return [*weighted_rows(drawn, batch), slope_rows(drawn, batch)]

    found = rows_of(batches.batch(chosen))
    if not all(bool(torch.isfinite(part).all()) for pair in found for part in pair):
        raise explained_rows(batches, chosen, lambda batch: sum(rows_of(batch), ()))
    return found


@torch.no_grad()
def weighted_rows(drawn: DrawnNet, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Rows [n, P] and targets [n, S] of the atoms, and of the sums per center of the structures, of a batch.

    Rows and targets are multiplied by the roots of the weights of the labels. Targets are labels less the prediction of
    the bias alone, in the units of ``DrawnNet.columns``.
    """
    model, name = drawn.model, drawn.name
    if batch.environment is None:
        descriptor = model.descriptor_of(name)
        batch = dataclasses.replace(batch, environment=descriptor(batch.system, batch.edges()))
    columns, label = drawn.columns(batch), QUANTITIES[name].atomic
    atomic, owners, total, structures = row_errors(model, batch, name)
    is_center = model.is_center(batch.system.numbers, name)
    none = columns.new_zeros(0, columns.shape[2]), columns.new_zeros(0, 1)
    found = [none, none]
    if atomic is not None and len(atomic):
        mine = batch.matching(label, columns)[batch.matching(label, is_center)]
        found[0] = _flat(drawn, mine, atomic, batch.weights_of(label)[owners])
    if total is not None:
        counts = batch.system.sum_per_system(is_center.to(columns)).clamp(min=1)[structures]
        mine = batch.system.sum_per_system(columns)[structures] / counts[:, None, None]
        error = total.reshape(len(total), -1) / counts[:, None]
        found[1] = _flat(drawn, mine, error, weights_of_sums(batch, name)[structures])
    return found


def _flat(drawn, columns, errors, weights):
    """Rows and targets of columns [n, d, P], errors [n, ...] and weights [n]."""
    roots, d = weights.sqrt(), columns.shape[1]
    rows = (columns * roots[:, None, None]).flatten(0, 1)
    targets = -(errors.reshape(len(errors), -1) / drawn.scale_of_targets()) * roots[:, None]
    return rows, targets.reshape(len(rows), -1) if d > 1 else targets


def _weights(kinds, loss, by_data, batches, model):
    """(weights of the kinds with labels to compare, score of their errors)."""
    having = [kind is not None for kind in kinds]
    if sum(having) == 1:
        return [(1.0,)], geometric_mean
    if not by_data:
        given = (loss.atomic, loss.total, getattr(loss, "born", 0.0))
        return [tuple(itertools.compress(given, having))], weighted_sum
    atomic, total, slopes = having
    combinations: list[tuple[float, ...]] = [(1.0,)]
    if atomic and total:
        numbers = [system.numbers for system in batches.systems]
        n_centers = sum(int(model.is_center(part, loss.quantity).sum()) for part in numbers) / len(numbers)
        row = QUANTITIES[loss.quantity]
        only_sums = any(row.total in labels and row.atomic not in labels for labels in batches.labels)
        combinations = [(1.0, n_centers * weight) for weight in TOTALS if weight or not only_sums]
    if slopes:
        first = next(kind for kind in kinds if kind is not None)
        unit = first.mean_square / max(kinds[2].mean_square, 1e-300)
        combinations = [(*own, unit * weight) for weight in OF_SLOPES for own in combinations]
    return combinations, geometric_mean


def _described(choice: Choice, kinds: Sequence, loss: AtomicLoss, drawn: DrawnNet, n: int) -> dict[str, Any]:
    """What was chosen, dict of JSON types."""
    having = [k for k, kind in enumerate(kinds) if kind is not None]
    scale = float(torch.as_tensor(drawn.scale_of_targets()).double().square().mean().sqrt())
    return {
        "structures": n,
        "drawn": drawn.head.widths[0],
        "ridge": choice.ridge,
        "weights": dict(zip([("atomic", "total", "born")[k] for k in having], choice.weights)),
        "cross_validation": dict(zip([loss.errors[k] for k in having], [scale * error for error in choice.errors])),
    }


def _in_words(name, found):
    """Line that says what was chosen and why."""
    weights = ", ".join(f"{kind} {weight:.4g}" for kind, weight in found["weights"].items())
    errors = readable_errors(found["cross_validation"])
    why = f"by the errors of structures left out in blocks: {errors}" if errors else "for a single structure"
    return (
        f"[{name}] closed form with {found['drawn']} drawn functions from {found['structures']} structures; ridge "
        f"{found['ridge']:.1e}, weights {weights}, {why}"
    )
