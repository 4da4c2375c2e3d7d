"""Spread of labels over a data set: the unit in which errors of different labels are compared and weighted."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.quantities import LABELS, Quantity

TINY = 1e-12
LENGTH = 1.0  # Å; times the rms force: the energy by which an atom changes when it moves, below which no unit goes
REACH = 3.0  # Å; a virial is a sum of forces times distances to neighbors
START_AND_END = {"energy": (0.01, 1.0), "forces": (10.0, 1.0), "virial": (0.05, 0.2)}  # weights in units of the spreads


def spread_of(rows: Iterable[tuple[NDArray, NDArray]], label: str) -> float:
    """Spread of a label, per atom; 0.0 where there are no rows or all are equal.

    Values of atoms are compared with their mean. Values of structures are divided by the number of atoms; they are
    compared with the least-squares sum over their atoms of a constant by species.

    Parameters
    ----------
    rows : iterable of (atomic numbers [N], value)
        Of the structures that have the label.
    """
    rows = list(rows)
    if not rows:
        return 0.0
    if LABELS[label].of_atoms:
        values = np.concatenate([np.reshape(value, (len(numbers), -1)) for numbers, value in rows])
        with np.errstate(over="ignore"):  # the loop names a label that is out of all proportion
            return float(np.sqrt(values.var(axis=0).mean()))
    return float(np.sqrt((beyond_composition(rows) ** 2).mean()))


def beyond_composition(rows: Sequence[tuple[NDArray, NDArray]]) -> NDArray:
    """Values of structures per atom [n, ...], less the least-squares sum over their atoms of a constant by species.

    Parameters
    ----------
    rows : sequence of (atomic numbers [N], value)
    """
    per_atom = np.array([np.ravel(value) / len(numbers) for numbers, value in rows])
    species = np.unique(np.concatenate([numbers for numbers, _ in rows]))
    shares = np.array([(numbers[:, None] == species).mean(axis=0) for numbers, _ in rows])
    return per_atom - shares @ np.linalg.lstsq(shares, per_atom, rcond=None)[0]


def error_spreads(batches: Batches, loss: Callable) -> dict[str, float]:
    """Spread of the labels behind each error of a loss, in the unit of the error; 1 where labels have none.

    Errors whose labels are of another kind than the error, such as sums of labels by atom, take the spread of those.
    """

    def rows(label):
        for system, labels in zip(batches.systems, batches.labels):
            if label in labels:
                yield system.numbers.cpu().numpy(), labels[label].double().cpu().numpy()

    found = {}
    for name, labels in getattr(loss, "sources", {}).items():
        spreads = [spread_of(rows(label), label) for label in labels if label]
        found[name] = next((spread for spread in spreads if spread > TINY), 1.0)
    return found


def energy_weights(frames: Frames) -> dict[str, tuple[float, float]]:
    """Weights, first and last, of energies, forces and virials in an EnergyLoss, in units of the spread of each label.

    A weight is that of START_AND_END over the square of a unit. For forces the unit is their root mean square F. For
    energies it is the spread of E/N times the root of N, as EnergyLoss divides their squares by N, but at least F times
    1 Å: the energies of similar structures differ by less than what their atoms do. For virials it is the spread of
    their components per atom times the root of N, but at least F times 3 Å. In this way no label dominates the others,
    whatever the sizes of the cells and the pressures are.

    Parameters
    ----------
    frames : Frames
        Structures to train on; a label that none has gets the weight that it would have without a spread.
    """
    units = {}
    for name in START_AND_END:
        having = [frame for frame in frames if name in frame.labels]
        spread = spread_of(((frame.atoms.numbers, np.asarray(frame.labels[name])) for frame in having), name)
        n_atoms = np.mean([len(frame.atoms) for frame in having]) if having else 1.0
        units[name] = spread if name == "forces" else spread * float(n_atoms) ** 0.5
    force = units["forces"]
    units["energy"] = max(units["energy"], LENGTH * force)
    units["virial"] = max(units["virial"], REACH * force)
    known = max(units.values()) or 1.0
    return {
        name: (float(start / (units[name] or known) ** 2), float(end / (units[name] or known) ** 2))
        for name, (start, end) in START_AND_END.items()
    }


def with_born(options: Any, quantity: Quantity, frames: Frames) -> Any:
    """Settings of a head whose weight of Born charges, in units of the spreads of labels, has become one in Å^2.

    By default it is one where ``frames`` have some, and none elsewhere.

    Raises
    ------
    ValueError
        Where no weight is left.
    """
    if not quantity.slopes:
        return options

    def spread(label):
        rows = [(frame.atoms.numbers, np.asarray(frame.labels[label])) for frame in frames if label in frame.labels]
        return spread_of(rows, label)

    own = spread(quantity.slopes)
    if own <= TINY:
        if not (options.born or options.atomic or options.total):
            raise ValueError(
                f"[{quantity.name}]: atomic and total are 0, and none of the {len(frames)} frames to train on has Born "
                "charges, which are left; give some, or another weight"
            )
        return options if options.born else options.model_copy(update={"born": 0.0})
    of_vectors = next((found for found in map(spread, (quantity.atomic, quantity.total)) if found > TINY), own)
    factor = 1.0 if options.born is None else options.born
    return options.model_copy(update={"born": factor * (of_vectors / own) ** 2})
