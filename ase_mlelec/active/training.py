"""The training of a round: the configuration of the user, with the labels of all rounds before."""

import os
from pathlib import Path
from typing import Any

from ase_mlelec.active.config import ActiveConfig
from ase_mlelec.train.config import Config, OutputConfig
from ase_mlelec.train.recipe import train_members
from ase_mlelec.train.recipes.defaults import in_closed_form


def round_config(config: ActiveConfig, n: int) -> Config:
    """Configuration of the training of round ``n``."""
    base, folder = config.trained, config.folder_of(n)
    labels = [config.folder_of(k) / "labels.h5" for k in range(n)]
    files = (*base.data.files, *(relative(path, base.folder) for path in labels if path.exists()))
    changes: dict[str, Any] = {
        "data": base.data.model_copy(update={"files": files}),
        "output": OutputConfig(model=relative(folder / "model.safetensors", base.folder)),
    }
    if n and is_warm(config):
        changes |= shortened(base, config.train.share)
        changes["start"] = relative(models_of_round(config, n - 1)[0], base.folder)
    return base.model_copy(update=changes)


def is_warm(config: ActiveConfig) -> bool:
    """Whether trainings start from the model of the round before."""
    if config.train.warm is not None:
        return config.train.warm
    base = config.trained
    return base.committee == 1 and not any(solved(base, row.name) for row in base.wanted)


def solved(config: Config, name: str) -> bool:
    """Whether a head is fitted in closed form."""
    section: Any = config.section(name)
    return in_closed_form(config, name) or not section.widths


def shortened(base: Config, share: float) -> dict[str, Any]:
    """Fewer steps, or a shorter time, of heads that are trained by gradient descent; changes of the configuration."""
    changes: dict[str, Any] = {"minutes": base.minutes and share * base.minutes}
    for row in base.wanted:
        section: Any = base.section(row.name)
        if "steps" in section.given and section.steps:
            changes[row.name] = section.model_copy(update={"steps": max(int(share * section.steps), 1)})
    return changes


def models_of_round(config: ActiveConfig, n: int) -> list[Path]:
    """Model files of a round: one, or those of a committee."""
    folder, size = config.folder_of(n), config.trained.committee
    return [folder / (f"model-{k}.safetensors" if size > 1 else "model.safetensors") for k in range(size)]


def train_round(config: ActiveConfig, n: int, *, progress: bool) -> list[Path]:
    """Train the models of a round that are not trained yet; paths of all."""
    paths = models_of_round(config, n)
    done = paths[0].parent / "trained"
    if not done.exists():
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        for _ in train_members(round_config(config, n), progress=progress):
            pass
        done.touch()
    return paths


def relative(path: Path, folder: Path) -> str:
    """Path from a folder, so that all may be moved together."""
    return os.path.relpath(path, folder)
