"""Calibration of the spread of a committee.

Reference: Imbalzano et al. 2021, J. Chem. Phys. 154, 074102.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.train.error_bars import rounded
from ase_mlelec.train.last_layer import BATCH
from ase_mlelec.train.losses import energy_and_derivatives, row_errors
from ase_mlelec.uncertainty import coverage, scale_of

# label -> results of calculators whose spread has its scale
RESULTS = {
    "energy": ("energy", "free_energy", "energies"),
    "forces": ("forces",),
    "virial": ("stress", "stresses"),
    "ados": ("ados",),
    "atomic_dipole": ("displacements",),
    **{row.total: (row.ase, "polarization") for row in QUANTITIES.values() if row.total == "summed_dipole"},
    "atomic_polarizability": ("atomic_polarizability",),
    "polarizability": ("polarizability",),
}


def calibrate_committee(models: Sequence[Model], frames: Frames) -> dict[str, dict[str, Any]]:
    """Give the first model of a committee the scales of its spread, as metadata "committee_scales".

    Parameters
    ----------
    models : sequence of Model
        Two or more, in the order in which calculators get them.
    frames : Frames
        Labeled data that none of the models was trained on.

    Returns
    -------
    dict by label of dict
        As of ase_mlelec.train.error_bars.add_error_bars.

    Raises
    ------
    ValueError
        For fewer than two models, and for frames without labels of their quantities.
    """
    if len(models) < 2:
        raise ValueError(f"got {len(models)} model, need two or more; give all models of the committee")
    report, scales = {}, dict(models[0].metadata.get("committee_scales", {}))
    for name in models[0].heads:
        if name not in QUANTITIES or not set(QUANTITIES[name].labels) & set(frames.counts):
            continue
        for label, members in _member_errors(models, QUANTITIES[name], frames).items():
            errors, spread = members.mean(axis=0), members.std(axis=0)
            scale = scale_of(errors, spread)
            scales |= dict.fromkeys(RESULTS.get(label, (label,)), float(f"{scale:.6g}"))
            found = coverage(errors, scale * spread)
            report[label] = {"scale": scale, **found._asdict(), "errors": errors.size, "calibrated_on": "given data"}
    if not report:
        raise ValueError(f"got {len(frames)} frames without labels of {', '.join(models[0].heads)}; give labeled data")
    models[0].metadata["committee_scales"] = scales
    models[0].metadata["committee_error_bars"] = {label: rounded(found) for label, found in report.items()}
    return report


def _member_errors(models, quantity, frames):
    """Errors (prediction - label) of every member, dict by label of array [member, ...]."""
    columns: dict[str, list] = {}
    for model in models:
        batches = Batches.for_model(model, frames, quantity.labels).with_label(*quantity.labels)
        own: dict[str, list] = {}
        for batch in batches.all_batches(BATCH):
            for label, errors in _errors(model, batch, quantity):
                own.setdefault(label, []).append(errors.double().cpu().numpy())
        for label, parts in own.items():
            columns.setdefault(label, []).append(np.concatenate(parts))
    return {label: np.array(members) for label, members in columns.items()}


@torch.no_grad()
def _errors(model, batch, quantity):
    """Iterate over (label, errors) of a batch."""
    if quantity.gradients:
        labels = [name for name in quantity.labels if name in batch.labels]
        energy, found = energy_and_derivatives(model, batch, labels)
        for label, value in {quantity.total: energy, **found}.items():
            if label in labels:
                yield label, batch.matching(label, value) - batch.labels[label]
        return
    atomic, _, sums, _ = row_errors(model, batch, quantity.name)
    if atomic is not None and len(atomic):
        yield quantity.atomic, atomic
    if sums is not None:
        yield quantity.total, sums
