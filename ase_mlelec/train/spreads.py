"""Spread of labels over a data set: the unit in which errors of different labels are compared."""

from collections.abc import Callable

import numpy as np
import torch

from ase_mlelec.data.batches import Batches
from ase_mlelec.quantities import LABELS

TINY = 1e-12


def label_spread(batches: Batches, label: str) -> float:
    """Spread of a label, per atom; 0.0 where no structure has it or all are equal.

    Values of atoms are compared with their mean. Values of structures are divided by the number of atoms; they are
    compared with the least-squares sum over their atoms of a constant by species.
    """
    chosen = [k for k, labels in enumerate(batches.labels) if label in labels]
    if not chosen:
        return 0.0
    values = [batches.labels[k][label].double().cpu() for k in chosen]
    if LABELS[label].of_atoms:
        rows = torch.cat(values).flatten(1) if values[0].ndim > 1 else torch.cat(values)[:, None]
        return float(rows.var(dim=0, correction=0).mean().sqrt())
    n_atoms = np.array([len(batches.systems[k].positions) for k in chosen])
    totals = torch.stack(values).flatten(1) if values[0].ndim else torch.stack(values)[:, None]
    per_atom = totals.numpy() / n_atoms[:, None]
    numbers = [batches.systems[k].numbers.cpu().numpy() for k in chosen]
    species = np.unique(np.concatenate(numbers))
    shares = np.array([(own[:, None] == species).mean(axis=0) for own in numbers])
    rest = per_atom - shares @ np.linalg.lstsq(shares, per_atom, rcond=None)[0]
    return float(np.sqrt((rest**2).mean()))


def error_spreads(batches: Batches, loss: Callable) -> dict[str, float]:
    """Spread of the labels behind each error of a loss, in the unit of the error; 1 where labels have none.

    Errors whose labels are of another kind than the error, such as sums of labels by atom, take the spread of those.
    """
    found = {}
    for name, labels in getattr(loss, "sources", {}).items():
        spreads = [label_spread(batches, label) for label in labels if label]
        found[name] = next((spread for spread in spreads if spread > TINY), 1.0)
    return found
