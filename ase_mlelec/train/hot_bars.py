"""Error bars of energies at other temperatures of the electrons: the posterior of the cold energy, with scales of their own.

The energies at a temperature are fitted to some of the structures that the cold energy knows, or begin with it. How far a
structure is from all of them is therefore the same, and the size of the errors is another one.
"""

import copy
from collections.abc import Mapping

import torch

from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.train.error_bars import calibrated, rounded
from ase_mlelec.train.log import Log

LABELS = {"energy", "forces", "virial"}


def add_hot_error_bars(
    model: Model, held: Mapping[float, tuple[Model, Frames]], *, progress: bool | Log = False
) -> dict[str, dict[str, float]]:
    """Give the energies of ``model`` at other temperatures scales and floors of error bars, and its metadata their report.

    Parameters
    ----------
    model : Model
        With HotEnergies and a posterior of the energy; others get nothing. Changed in place.
    held : dict of (Model, Frames)
        By temperature, K: an energy at this temperature, and structures with its labels to which it was not fitted. Where
        there are none, the bars are those of the energy at the temperature of the model.

    Returns
    -------
    dict of dict
        As ``add_error_bars``, by names such as "forces at 10000 K".
    """
    hot, log, report = model.hot, Log.of(progress), {}
    if hot is None or "energy" not in model.posteriors:
        return {}
    for k, temperature in enumerate(hot.temperatures):
        energies, frames = held.get(temperature, (model, None))
        if not frames or not LABELS & {*frames.counts}:
            log.tell(f"error bars at {temperature:g} K: as at {hot.reference:g} K; no structures to calibrate on")
            continue
        own, whole = copy.copy(model.posteriors["energy"]), copy.copy(energies)
        whole._modules = {**energies._modules, "posteriors": torch.nn.ModuleDict({"energy": own})}
        found = calibrated(whole.cpu(), "energy", frames, log)
        hot.scales[k], hot.floors[k] = own.scales, own.floors
        for label, each in found.items():
            report[f"{label} at {temperature:g} K"] = each | {"calibrated_on": "validation data"}
    kept = model.metadata.get("error_bars", {})
    model.metadata["error_bars"] = kept | {label: rounded(found) for label, found in report.items()}
    return report
