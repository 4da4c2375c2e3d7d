"""Calibration of error bars of what follows from a density of states: Fermi level, band energy, edges of a gap.

To first order these are integrals of the density of states over energies, or differences at neighboring energies. How
large their errors are depends on how errors at different energies are correlated in a structure, of which the posterior
knows one mean over all structures; for silicon in the diamond structure bars of Fermi levels would be four times the
errors. Each quantity therefore has a scale of its own, found by the errors of the same structures, and a floor in
proportion to the leverage of the atoms alone, which counts twice as much as the first order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.electrons import Electrons
from ase_mlelec.model import Model
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.train.deviations import Deviations
from ase_mlelec.train.last_layer import batch_by_batch
from ase_mlelec.train.log import Log
from ase_mlelec.train.losses import row_errors
from ase_mlelec.uncertainty import contributions, coverage, scale_of
from ase_mlelec.uncertainty.dos_bars import SMOOTH, DosBars
from ase_mlelec.uncertainty.scales import NONE

SHARE = 2.0  # root mean square of the floor over that of the first order; by cross-validation of ``si`` and ``mgo``
FEWEST = 5  # structures: with fewer, a scale of their own would be a matter of chance
LOOKED_AT = 100  # structures


def calibrate_derived(
    model: Model, frames: Frames, log: Log, *, larger: Mapping[str, float] | None = None, train: Frames | None = None
) -> dict[str, dict[str, Any]]:
    """Set scales and floors of what follows from the density of states; report as of ``add_error_bars``, by name.

    Quantities that fewer than five structures have keep the spread of members.

    Parameters
    ----------
    model : Model
        With a posterior of the density of states and its scale "members".
    frames : Frames
        Structures with densities of states.
    larger : dict of float
        Factors of the errors by label; default one.
    train : Frames
        Structures that tell with ``frames`` how far numbers of states below gaps are off, see ``Electrons``.
    """
    posterior, report = model.posteriors["dos"], {}
    errors = [states_below_gap_error(model, each, log) for each in (frames, train) if each]
    if known := [error for error in errors if error is not None]:
        model.metadata["states_below_gap_error"] = float(f"{max(known):.3g}")
    factor = next((value for label, value in (larger or {}).items() if label in QUANTITIES["dos"].labels), 1.0)
    for name, each in derived_deviations(model, frames, progress=log).items():
        if len(each.errors) >= FEWEST and (each.posterior > NONE).all():
            report[name] = _with_both_parts(posterior, name, factor * each.errors, each)
    return report


def _with_both_parts(posterior, name, errors, found):
    """Set scale and floor of a quantity, the floor in units of the posterior; its report.

    In cross-validation of silicon and magnesium oxide, with scales from 6, 14 and 40 structures, a fixed share made the
    errors as likely as the most likely share of the same few structures, or more so.
    """
    floor = SHARE * float(np.sqrt(np.mean(found.posterior**2) / np.mean(found.floor**2)))
    alone = found.total(floor)
    scale = scale_of(errors, alone)
    posterior.floors[name] = float(f"{floor:.6g}")
    posterior.scales[name] = float(f"{scale * posterior.scale('members'):.6g}")
    shares = coverage(errors, scale * alone)
    return {"scale": posterior.scales[name], **shares._asdict(), "errors": int(errors.size)}


def take_over_derived(model: Model, frames: Frames, like: Model, log: Log) -> None:
    """Set scales and floors so that the bars of both models are as large on ``frames``, where those of ``like`` have any."""
    mine, theirs = (each.posteriors["dos"] for each in (model, like))
    if "states_below_gap_error" in like.metadata:
        model.metadata["states_below_gap_error"] = like.metadata["states_below_gap_error"]
    wanted, found = (derived_deviations(each, frames, progress=log) for each in (like, model))
    for name in theirs.floors.keys() & wanted.keys() & found.keys():
        ratios = [np.sqrt(np.mean(each**2) / np.mean(own**2)) for each, own in zip(wanted[name][1:], found[name][1:])]
        scale = theirs.scale(name) / theirs.scale("members") * ratios[0]
        mine.scales[name] = float(f"{scale * mine.scale('members'):.6g}")
        mine.floors[name] = float(f"{theirs.floor(name) * ratios[1] / ratios[0]:.6g}")


def derived_deviations(model: Model, frames: Frames, *, progress: bool | Log = False) -> dict[str, Deviations]:
    """Errors of what follows from a density of states, with the parts of their bars without a scale, by name.

    Those of a metal are Fermi level, band energy, entropy and heat capacity at the temperature of the model; those of an
    insulator are gap and edges. Structures that are one by the model and the other by their labels have none.

    Parameters
    ----------
    model : Model
        With a posterior of the density of states.
    frames : Frames
        Structures with "ados" or "dos" among their labels.
    """
    quantity = QUANTITIES["dos"]
    found: dict[str, list] = {}
    electrons = Electrons.of(model.metadata, model.heads["dos"])
    batches = Batches.for_model(model, frames, quantity.labels).with_label(*quantity.labels)
    for batch in batch_by_batch(batches, 1, progress, "error bars: Fermi levels and gaps of"):
        for name, *parts in _of_structure(model, batch, electrons):
            found.setdefault(name, []).append(parts)
    return {name: Deviations(*np.transpose(rows)) for name, rows in found.items()}


@torch.no_grad()
def states_below_gap_error(model: Model, frames: Frames, log: Log) -> float | None:
    """Root mean square error of the number of states below the gap of the label, as a share of the electrons.

    Squares of roots are too small on average, by the spread of the roots, so that the states below a gap may miss more
    electrons than there are in the lowest levels above it. None where no structure has a gap.
    """
    quantity, electrons = QUANTITIES["dos"], Electrons.of(model.metadata, model.heads["dos"])._replace(unsure=0.0)
    some = replace(frames, frames=frames.frames[:: max(1, len(frames) // LOOKED_AT)])
    batches = Batches.for_model(model, some, quantity.labels).with_label(*quantity.labels)
    shares, energies = [], model.heads["dos"].energies.double().cpu()
    for batch in batch_by_batch(batches, 1, log, "states below the gaps of"):
        n_electrons, wrong = electrons.number(batch.system.numbers.tolist()), row_errors(model, batch, "dos")[2]
        if n_electrons is None or wrong is None:
            continue
        total = batch.predict(model, "dos").double().cpu().sum(dim=0)
        wrong = wrong[0].double().cpu()
        gap = electrons.gap(energies, total - wrong, n_electrons, len(batch.system.numbers))
        if gap is not None:
            below = energies <= (gap.vbm + gap.cbm) / 2
            shares.append(float(torch.trapezoid(wrong[below], energies[below])) / n_electrons)
    return float(np.sqrt(np.mean(np.square(shares)))) if shares else None


@torch.no_grad()
def _of_structure(model, batch, electrons) -> Iterator[tuple[str, float, float, float]]:
    """(name, error, deviation, floor) of all that follows from the density of states of a structure."""
    n_electrons = electrons.number(batch.system.numbers.tolist())
    wrong = row_errors(model, batch, "dos")[2]
    if n_electrons is None or wrong is None:
        return
    head, posterior = model.heads["dos"], model.posteriors["dos"]
    ados = batch.predict(model, "dos").double().cpu()
    total, label = ados.sum(dim=0), ados.sum(dim=0) - wrong[0].double().cpu()
    of = contributions(head, posterior, model.descriptor_of("dos")(batch.system, batch.edges()))
    kelvin = float(model.metadata.get("electronic_temperature_K", 0.0))
    bars = DosBars(head.energies, ados, n_electrons=n_electrons, temperature=kelvin, of=of, posterior=posterior)

    def gap(dos: Tensor, electrons: Electrons = electrons):
        return electrons.gap(head.energies, dos, n_electrons, len(ados))

    found = gap(total), gap(label, electrons._replace(unsure=0.0))
    if None not in found:
        pairs = {name: [float(getattr(each, name)) for each in found] for name in ("vbm", "cbm")}
        pairs["gap"] = [float(each.cbm - each.vbm) for each in found]
        for name, deviation in bars.gap(gap).items():
            yield name, pairs[name][0] - pairs[name][1], deviation, bars.floor(name)
    elif found == (None, None):
        yield from _of_metal(bars, (total, label))


def _of_metal(bars, spectra):
    """(name, error, deviation, floor) of the smooth functions of the density of states that are linear in its errors."""
    for name, function in SMOOTH.items():
        try:
            values = [float(function(bars.energies, each, *bars.filling)) for each in spectra]
        except ValueError:  # electrons beyond the grid
            return
        deviation = bars.smooth(name)
        if deviation is not None:
            yield name, values[0] - values[1], deviation, bars.floor(name)
