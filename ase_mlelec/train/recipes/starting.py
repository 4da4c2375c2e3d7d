"""What a training starts from: another model, or random weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ase_mlelec.bundle import load_model
from ase_mlelec.model import Model
from ase_mlelec.train.config import Config


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which random weights depend on ``seed`` alone; it does not change the random numbers after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def starting_model(config: Config, *heads: str) -> Model:
    """Starting Model of a training; ValueError where it lacks one of ``heads``."""
    path = config.folder / config.start
    start = load_model(path if path.exists() else config.start)
    for name in heads:
        if name not in start.heads:
            raise ValueError(
                f"start: {config.start} has no {name}, it has {', '.join(start.heads)}; leave out "
                f"[{name}] or start from another model"
            )
    return start


def check_same(section: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise ValueError where the arguments ``mine`` differ from ``theirs``, the arguments of the starting model."""
    for name, value in theirs.items():
        if mine.get(name) != value:
            raise ValueError(
                f"start: got {mine.get(name)} as {name} of the {section}, the model that training starts "
                f"from has {value}; give it the same"
            )
