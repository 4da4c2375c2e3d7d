"""Errors of a model on labeled structures: the table of ``mlelec test`` and of a model's metadata."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from ase_mlelec import units
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.measures import Measure
from ase_mlelec.model import Model
from ase_mlelec.quantities import LABELS, QUANTITIES
from ase_mlelec.train.dipoles import on_branch_of_model
from ase_mlelec.train.losses import energy_and_derivatives, row_errors
from ase_mlelec.train.slopes import slopes_of_sums

FRAMES_PER_BATCH = 8


def errors(model: Model, frames: Frames) -> dict:
    """Errors of all quantities that ``model`` predicts and for which ``frames`` have labels.

    The spread of the ADOS is the square root of the variance over the atoms of ``frames``, averaged over the energies; a
    model that predicts the mean spectrum for every atom has a relative error of 1. Vectors and tensors are compared for
    the centers alone, tensors with the symmetric part of their labels. The dipole has an error where the metadata of the
    model have the charge of the electrons. A dipole without vectors is compared on the branch nearest to the prediction.

    Every error is over the structures that have the label. Where some structures lack it, keys that end in "_frames"
    hold the number of structures that have it.

    Returns
    -------
    dict of float and int
        Keys are those of the measures in ase_mlelec.quantities.

    Raises
    ------
    ValueError
        For frames without any label of the model, and labels of a wrong shape or on another energy grid.
    InputError
        For species that the model does not know.
    """
    frames = on_branch_of_model(model, frames)
    names = comparable(model, frames)
    if not names:
        some = [name for name in frames.counts if name not in frames.labels]
        raise ValueError(
            f"got {len(frames)} frames with the labels {', '.join(frames.labels) or 'none'} in common"
            f"{' and ' * bool(some)}{', '.join(some)}{' on some' * bool(some)}, the model predicts "
            f"{', '.join(model.heads)}; give data with labels of these"
        )
    fast = model.for_evaluation()
    batches = Batches.for_model(fast, frames, names)
    result: dict = {}
    for quantity in _predicted(model):
        mine = [name for name in quantity.labels if name in names]
        if mine:
            result |= _errors_of(fast, batches.with_label(*mine), quantity, mine)
    return result | _counts(frames, names)


def _predicted(model):
    """Quantities that a model predicts and for which data sets can have labels."""
    return [row for name, row in QUANTITIES.items() if name in model.heads and row.labels]


def comparable(model: Model, frames: Frames) -> tuple:
    """Names of the labels that ``model`` predicts and some of ``frames`` have, tuple of str.

    Sums over atoms are left out where all frames have the labels by atom.
    """
    found = []
    for quantity in _predicted(model):
        for name in quantity.labels:
            of_atoms = quantity.atomic if name == quantity.total else None
            if any(name in frame.labels and of_atoms not in frame.labels for frame in frames):
                found.append(name)
    return tuple(found)


def _counts(frames, names):
    """Number of frames behind each error, dict of int, for errors whose label some frames lack.

    For errors of sums over atoms, frames with labels by atom count as well.
    """
    by_atom = {row.total: row.atomic for row in QUANTITIES.values() if row.total}
    counts = {name: sum(bool({name, by_atom.get(name)} & set(frame.labels)) for frame in frames) for name in names}
    return {_frames_with(name): count for name, count in counts.items() if count < len(frames)}


def _frames_with(label):
    """Key of the number of frames that have a label; a virial is called stress, from which it was read."""
    former = [name for name, row in LABELS.items() if row.becomes == label]
    return f"{former[0] if former else label}_frames"


@torch.no_grad()
def _errors_of(model, batches, quantity, labels):
    """Errors of one quantity, dict by the keys of its measures."""
    kinds = dict.fromkeys((measure.label, measure.per) for measure in quantity.measures if measure.label)
    found = {kind: [] for kind in kinds}
    for batch in batches.all_batches(FRAMES_PER_BATCH):
        differences = _differences(model, batch, quantity, labels)
        sizes = {"atom": batch.system.n_atoms, "volume": batch.system.volume}
        for label, per in kinds:
            if label in differences:
                error, structures = differences[label]
                if per:
                    error = error / sizes[per][structures].reshape(-1, *[1] * (error.ndim - 1))
                found[label, per].append(error.double().cpu().numpy())
    result = {}
    for measure in quantity.measures:
        parts = found.get((measure.label, measure.per))
        scale = measure.scale(model.metadata) if callable(measure.scale) else measure.scale
        if parts and scale is not None:
            value = measure.statistic(np.concatenate(parts), _rows(batches, measure.label))
            result |= {measure.key: scale * value} if value is not None else {}
    return result


def _rows(batches, label):
    """Labels [n, ...] of all atoms or structures that have one; None where no batch has the label."""
    rows = [own[label] if LABELS[label].of_atoms else own[label][None] for own in batches.labels if label in own]
    return torch.cat(rows).double().cpu().numpy() if rows else None


def _differences(model, batch, quantity, labels):
    """Errors by label, dict of (prediction - label of the atoms or structures, numbers of their structures)."""
    if quantity.gradients:
        here = [name for name in labels if name in batch.labels]
        energy, values = energy_and_derivatives(model, batch, here)
        values |= {quantity.total: energy} if quantity.total in here else {}
        return {
            name: (batch.matching(name, value) - batch.labels[name], batch.has(name).nonzero()[:, 0])
            for name, value in values.items()
        }
    atomic, _, total, structures = row_errors(model, batch, quantity.name)
    found = {} if atomic is None or not len(atomic) else {quantity.atomic: (atomic, None)}
    if total is not None:
        found[quantity.total] = (total, structures)
    if quantity.slopes in batch.labels:
        slopes = batch.matching(quantity.slopes, slopes_of_sums(model, batch, quantity.name))
        found[quantity.slopes] = (slopes - batch.labels[quantity.slopes], None)
    return found


@torch.no_grad()
def compared(model: Model, frames: Frames) -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
    """Labels and predictions behind ``errors``, for figures.

    Returns
    -------
    dict of (labels [n], predictions [n], unit)
        By label, "stress" for virials. Energies and other sums are per atom, in units of ase_mlelec.quantities; stresses
        are in GPa. Sums are left out where frames have values of atoms. Where structures differ in composition, energies
        are "energy less that of the species": that of the isolated atoms that the model knows, or of a sum over species
        that is fitted to the labels, so that differences of species do not hide all others.
    """
    frames = on_branch_of_model(model, frames)
    fast, names = model.for_evaluation(), comparable(model, frames)
    batches = Batches.for_model(fast, frames, names)
    of_species = _energies_of_species(model, frames)
    found: dict[tuple[str, str], list] = {}
    for quantity in _predicted(model):
        mine = [name for name in quantity.labels if name in names]
        for batch in batches.with_label(*mine).all_batches(FRAMES_PER_BATCH) if mine else ():
            for label, (errors_, structures) in _differences(fast, batch, quantity, mine).items():
                if label == quantity.total and quantity.atomic in mine:
                    continue
                true = _true_rows(fast, batch, quantity, label)
                size, name, unit = _size_of(batch, label, structures)
                if of_species is not None and label == "energy":
                    sums = batch.system.sum_per_system(of_species.to(true)[batch.system.numbers])[structures]
                    true, name = true - sums, "energy less that of the species"
                rows = [((values / size).double().cpu().numpy().ravel()) for values in (true, true + errors_)]
                found.setdefault((name, unit), []).append(rows)
    joined = {key: [np.concatenate(column) for column in zip(*parts)] for key, parts in found.items()}
    return {name: (true, mine, unit) for (name, unit), (true, mine) in joined.items()}


def _energies_of_species(model, frames):
    """Energies, eV, by atomic number, Tensor [119], to subtract from energies; None where compositions do not differ."""
    labeled = [frame for frame in frames if "energy" in frame.labels]
    counts = np.array([np.bincount(frame.atoms.numbers, minlength=119) for frame in labeled]).reshape(-1, 119)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    if not len(labeled) or np.ptp(shares, axis=0).max() < 1e-9:
        return None
    known = {atomic_numbers[symbol]: e for symbol, e in model.metadata.get("isolated_atoms_eV", {}).items()}
    if set(np.flatnonzero(counts.any(axis=0))) <= known.keys():
        return torch.tensor([float(known.get(number, 0.0)) for number in range(119)], dtype=torch.float64)
    sizes = counts.sum(axis=1)
    energies = np.array([float(frame.labels["energy"]) for frame in labeled])
    return torch.as_tensor(np.linalg.lstsq(shares, energies / sizes, rcond=None)[0])


LARGE, REST = 0.1, 0.2  # eV/atom; share of the errors that a number for each species leaves, if the zero is another


@torch.no_grad()
def told_of_zero(model: Model, frames: Frames) -> str:
    """Line for energies whose errors are large and almost a constant for each species: another zero; "" for others."""
    some = frames.where(lambda frame: "energy" in frame.labels)
    species = sorted({symbol for frame in some for symbol in frame.atoms.symbols})
    if "energy" not in model.heads or len(some) < 2 * len(species) + 2:
        return ""
    fast, energy = model.for_evaluation(), QUANTITIES["energy"]
    batches = Batches.for_model(fast, some, ["energy"]).all_batches(FRAMES_PER_BATCH)
    found = np.concatenate(
        [_differences(fast, each, energy, ["energy"])["energy"][0].cpu().numpy() for each in batches]
    )
    sizes = np.array([len(frame.atoms) for frame in some])
    shares = (
        np.array([[list(frame.atoms.symbols).count(symbol) for symbol in species] for frame in some]) / sizes[:, None]
    )
    per_atom = found / sizes
    zeros = np.linalg.lstsq(shares, per_atom, rcond=None)[0]
    rest = np.abs(per_atom - shares @ zeros).mean()
    if np.abs(per_atom).mean() < LARGE or rest > REST * np.abs(per_atom).mean():
        return ""
    shown = ", ".join(f"{symbol} {zero:+.4g}" for symbol, zero in zip(species, zeros))
    return (
        "most of the error of energies is another zero of energy, as of other pseudopotentials: predictions less labels are "
        f"{shown} eV an atom; without that the mean absolute error is {1000 * rest:.4g} meV/atom"
    )


def _true_rows(model, batch, quantity, label):
    """Labels of a batch in the order of the errors in _differences."""
    true = batch.labels[label]
    if quantity.symmetric:
        true = (true + true.mT) / 2
    if label == quantity.atomic and hasattr(model.heads[quantity.name], "centers"):
        true = true[batch.matching(label, model.is_center(batch.system.numbers, quantity.name))]
    return true


def _size_of(batch, label, structures):
    """(divisor of values, name, unit) of a label in a figure."""
    row = LABELS[label]
    if row.of_atoms:
        return 1.0, label, row.unit
    shape = (-1, *[1] * (batch.labels[label].ndim - 1))
    if label == "virial":
        return -batch.system.volume[structures].reshape(shape) * units.GPA, "stress", "GPa"
    return batch.system.n_atoms[structures].reshape(shape), label, f"{row.unit}/atom"


def errors_by_kind(model: Model, frames: Frames) -> dict[str, dict]:
    """Errors of the structures of each kind, or of each group where there are no kinds; {} for less than two of them.

    Structures without a name are not among them.
    """
    frames = on_branch_of_model(model, frames)
    kinds = frames.kinds if any(frames.kinds) else frames.groups
    parts = {name: frames.take([k for k, own in enumerate(kinds) if own == name]) for name in sorted({*kinds} - {""})}
    if len(parts) < 2:
        return {}
    return {
        name: {"frames": len(part), **errors(model, part)} for name, part in parts.items() if comparable(model, part)
    }


def table_of_kinds(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Table of ``errors_by_kind`` as text: one line per kind, one column for the first measure of each label."""
    first: dict[str, Measure] = {}
    for row in QUANTITIES.values():
        for measure in row.measures:
            if any(measure.key in errors for errors in found.values()):
                first.setdefault(measure.label, measure)
    width = max(len(name) for name in (*found, "kind"))
    titles = [f"{measure.label} ({measure.unit})" for measure in first.values()]
    lines = [f"{'kind':<{width}}{'structures':>12}" + "".join(f"  {title:>20}" for title in titles)]
    for name, errors in found.items():
        values = (f"{errors[m.key]:20.4g}" if m.key in errors else f"{'-':>20}" for m in first.values())
        lines.append(f"{name:<{width}}{errors['frames']:12d}" + "".join(f"  {value}" for value in values))
    return "\n".join(lines)


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Table of errors as text: one line per measure, one column per entry of ``columns``, a dict of ``errors``."""
    titles = {measure.key: (measure.title, measure.unit) for row in QUANTITIES.values() for measure in row.measures}
    labels = dict.fromkeys(name for row in QUANTITIES.values() for name in row.labels)
    titles |= {_frames_with(name): (f"structures with {LABELS[name].noun}", "") for name in labels}
    rows = [key for key in titles if any(key in result for result in columns.values())]
    width = max(len(titles[key][0]) for key in rows)
    lines = [" " * width + "".join(f"{name:>12}" for name in columns)]
    for key in rows:
        title, unit = titles[key]
        values = "".join(
            f"{'-':>12}"
            if key not in result
            else f"{result[key]:12d}"
            if key.endswith("_frames")
            else f"{result[key]:12.4g}"
            for result in columns.values()
        )
        lines.append(f"{title:<{width}}{values}  {unit}".rstrip())
    return "\n".join(lines)
