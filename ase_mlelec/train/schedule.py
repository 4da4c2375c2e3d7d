"""Learning rates: how they fall, and how they rise again where a training gets more steps than it had."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import lr_scheduler

RESTART = 0.3  # a training that gets more steps goes on with at least this share of the first learning rate


@dataclass(frozen=True)
class Leg:
    """Steps ``start`` to ``end``, over which the learning rate falls once, from ``first``."""

    start: int
    end: int
    first: float


@dataclass(frozen=True)
class Schedule:
    """A learning rate that falls from ``first`` to ``last``.

    Parameters
    ----------
    kind : str
        "exponential"; "cosine", half a cosine; or "plateau": halved after ``patience`` validations without a new
        minimum of the watched error, until it is below ``last``, where training ends.

    References
    ----------
    Exponential: Rottenberg 2023, Eq. (2.22).  Cosine: Loshchilov and Hutter 2017, arXiv:1608.03983, Eq. (5).
    """

    first: float
    last: float
    kind: str = "exponential"
    patience: int = 1

    def rate(self, leg: Leg, step: int) -> float:
        """Learning rate of a step (from 0) of a leg; not for plateaus."""
        share = (step - leg.start) / max(leg.end - leg.start, 1)
        if self.kind == "cosine":
            return self.last + (leg.first - self.last) * (1 + math.cos(math.pi * share)) / 2
        return leg.first * (self.last / leg.first) ** share

    def plateaus(self, optimizer: torch.optim.Optimizer) -> Any:
        """Scheduler of torch, which is told the watched error; None for other kinds."""
        if self.kind != "plateau":
            return None
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=self.patience - 1, threshold=0.0)

    def ended(self, rate: float) -> bool:
        return self.kind == "plateau" and rate < self.last

    def __str__(self):
        waits = f", patience {self.patience}" if self.kind == "plateau" else ""
        return f"{self.first:g} to {self.last:g}, {self.kind}{waits}"
