"""Rows of closed forms of energies that are finite, and those of held-out structures."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.train.energy_rows import Rows, plain_rows, roots_of_weights, weighted_rows
from ase_mlelec.train.finite import explained_rows
from ase_mlelec.train.log import Log
from ase_mlelec.train.losses import EnergyLoss


def checked_rows(model: Model, batches: Batches, chosen: Sequence[int], loss: EnergyLoss) -> Rows:
    """Weighted rows of the chosen frames; raises Diverged where a row is not finite."""
    return _checked(weighted_rows(model, batches.batch(chosen), loss), batches, chosen, model, loss)


def held_rows(
    model: Model, frames: Frames, loss: EnergyLoss, *, progress: bool | Log = False
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Rows, targets, and factors to those of ``weighted_rows``, of held-out structures by label.

    Rows and targets of energies and virials are by atom. They are multiplied by the configuration weights, whose mean over
    the rows of a label is brought to one.
    """
    batches = Batches.for_model(model, frames, loss.labels).with_label(*loss.labels)
    found: dict[str, list[Tensor]] = {}
    ends = dict.fromkeys(loss.labels, 0)
    each_of = Log.of(progress).each(batches.all_batches(1), len(batches), "rows of held-out structures:")
    for k, batch in enumerate(each_of):
        names = [name for name in loss.labels if name in batch.labels]
        roots = roots_of_weights(batch, loss, names)
        for name, (rows, rest) in _checked(plain_rows(model, batch, names), batches, [k], model, loss).items():
            weight = batch.scaled(name, batch.weights)[0]
            factor = weight / (1 if name == "forces" else len(batch.system.numbers))
            ratio = roots[name] / factor if factor > 0 else torch.zeros_like(roots[name])
            if name not in found:  # the rows fill up to a gigabyte: they are not copied to join them
                n = sum(each[name].numel() for each in batches.labels if name in each)
                found[name] = [rows.new_empty(n, *shape) for shape in (rows.shape[1:], (), (), ())]
            own = slice(ends[name], ends[name] + len(rest))
            for column, part in zip(found[name], (factor * rows, factor * rest, ratio, weight.expand(len(ratio)))):
                column[own] = part
            ends[name] = own.stop
    for rows, targets, ratios, weights in found.values():
        mean = weights.mean()
        rows /= mean
        targets /= mean
        ratios *= mean
    return {name: (rows, targets, ratios) for name, (rows, targets, ratios, weights) in found.items() if weights.any()}


def _checked(rows, batches, chosen, model, loss):
    if not all(bool(torch.isfinite(part).all()) for pair in rows.values() for part in pair):
        raise explained_rows(
            batches,
            chosen,
            lambda batch: tuple(part for pair in weighted_rows(model, batch, loss).values() for part in pair),
        )
    return rows
