"""Checkpoints of the stages of a training, and the settings that they must share with it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ase_mlelec.model import Model
from ase_mlelec.train.checkpoint import load_checkpoint
from ase_mlelec.train.config import Config
from ase_mlelec.train.finite import refuse_model

FREE = {"committee", "minutes", "output"}  # settings that may change between the calls of one training
FREE_OF_HEADS = {"steps", "epochs", "patience"}


def checkpoint_of(config: Config, name: str) -> Path:
    """Path of the checkpoint of one stage."""
    return (config.folder / config.output.model).with_suffix(f".{name}.checkpoint")


def settings_of(config: Config) -> dict[str, str]:
    """Settings that an interrupted or lengthened training must share with its checkpoint, by "section.name".

    The number of steps, the files that are written and the groups for tests may change.
    """
    found = {}
    for section, value in config.model_dump(exclude=FREE).items():
        names = value if isinstance(value, dict) else {"": value}
        for name, setting in names.items():
            if name not in FREE_OF_HEADS and (section, name) != ("data", "test"):
                found[f"{section}.{name}".rstrip(".")] = str(setting)
    return found


def defaults_of(config: Config) -> set[str]:
    """Names of ``settings_of`` at their defaults, which checkpoints of versions without these settings lack."""
    found = set()
    for name, setting in settings_of(config).items():
        section, _, key = name.partition(".")
        fields = getattr(type(getattr(config, section)), "model_fields", {}) if key else Config.model_fields
        field = fields.get(key or section)
        if field is not None and str(field.get_default(call_default_factory=True)) == setting:
            found.add(name)
    return found


def steps_before(model: Model, name: str, config: Config) -> dict[str, Any]:
    """Steps that the stages before made; a stage on a descriptor that was trained further begins anew."""
    paths = {other: checkpoint_of(config, other) for other in model.heads if other != name}
    return {f"steps of {other}": load_checkpoint(path).get("step") for other, path in paths.items() if path.exists()}


def save(model: Model, config: Config, checkpoints: Iterable[Path] = ()) -> Model:
    """Write a trained model, which must be finite, and remove ``checkpoints``; the model as it is evaluated."""
    refuse_model(model, config.output.model)
    model.save(config.folder / config.output.model)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    return model.eval()
