"""Error bars of a saved model as its training made them, from its own training data.

An energy in closed form has learned its validation structures in the end, by whose errors its bars are calibrated. The fit
without them is therefore made again, with the ridge and the weights that the model file has.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError

from ase_mlelec.data.frames import Frames, join
from ase_mlelec.model import Model
from ase_mlelec.train.config import Config
from ase_mlelec.train.error_bars import add_error_bars, arranged
from ase_mlelec.train.linear_energy import ChosenFit, fit_with_weights
from ase_mlelec.train.log import Log
from ase_mlelec.train.recipes.linear_energy import unit_loss, without_absurd
from ase_mlelec.train.recipes.parts import split
from ase_mlelec.train.recipes.reading import weighted

PARTS = ("train", "validation", "support")


def parts_of_training(model: Model, frames: Frames) -> dict[str, Frames] | None:
    """Parts of the training of ``model``, as its configuration divides ``frames``.

    None where these are not the structures that it was trained on, where its file does not tell, or where single files of
    the training had weights.
    """
    known, config = model.metadata.get("training", {}).get("fingerprints", {}), _config_of(model)
    if config is None or "train" not in known:
        return None
    copies = replace(frames, frames=[replace(frame) for frame in frames])  # which get other weights
    try:
        parts = split(weighted(copies, Path(), config), config)
    except ValueError:  # nothing to train on
        return None
    found = {name: parts[name].fingerprint() for name in PARTS if len(parts.get(name, ()))}
    return parts if found == {name: known[name] for name in PARTS if name in known} else None


def add_error_bars_again(
    model: Model, parts: Mapping[str, Frames], *, progress: bool | Log = False
) -> dict[str, dict[str, float]]:
    """Give the heads of ``model`` the error bars that its training gives them; report as in ``add_error_bars``.

    Parameters
    ----------
    model : Model
        Changed in place: its ``posteriors`` are replaced, its weights are not changed.
    parts : dict of Frames
        "train" and "support" as in the training, see ``parts_of_training``; "validation" may be others.
    """
    log, config = Log.of(progress), _config_of(model)
    chosen = model.metadata["training"].get("closed_form", {}).get("energy", {})
    if config is None or config.energy is None or config.start or "weights" not in chosen:
        return add_error_bars(model, parts["train"], parts["validation"], progress=log)
    parts = without_absurd(dict(parts), config, log)
    with _fitted(model, parts, config, chosen, log) as fitted:
        factor = fitted.factor
        factors = {} if factor is None else {"energy": arranged(factor, model.heads["energy"].nets)}
        return add_error_bars(
            model,
            parts["train"],
            parts["validation"],
            factors=factors,
            left_out=None if fitted.left_out is None else {"energy": fitted.left_out},
            held_errors={"energy": chosen.get("errors", {})},
            support=parts.get("support"),
            progress=log,
        )


def _config_of(model):
    """Configuration of the training of a model; None where its file has none, or that of a former version."""
    try:
        return Config.model_validate(model.metadata["training"]["configuration"])
    except (KeyError, ValidationError):
        return None


@contextmanager
def _fitted(model, parts, config, chosen, log) -> Iterator[ChosenFit]:
    """Context in which the energy of ``model`` is that of a fit without its validation structures."""
    train, support = parts["train"], parts.get("support")
    frames = join([train, support]) if support else train
    log.tell(f"fitting the energy to {len(frames)} structures as in the training")
    layers = [part for layer in model.heads["energy"].nets.last for part in (layer.weight, layer.bias)]
    before, core = [part.detach().clone() for part in layers], model.core
    for part in layers:  # where the training began, before there was a core
        torch.nn.init.zeros_(part)
    model.core = None
    try:
        loss = unit_loss(frames, config.energy)
        fitted = fit_with_weights(model, frames, loss, chosen["weights"], chosen["ridge"], in_order=train)
        model.core = core
        yield fitted
    finally:
        model.core = core
        with torch.no_grad():
            for part, value in zip(layers, before):
                part.copy_(value)
