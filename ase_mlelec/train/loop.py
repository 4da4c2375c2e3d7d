"""Training loop for all models.

A recipe supplies a Problem: batches, losses and errors. The loop does everything else: steps of the optimizer, learning
rate, checks of gradients, validation, best weights, checkpoint, learning curve, resume, log lines and the stop.
"""

import csv
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import lr_scheduler
from tqdm import tqdm

from ase_mlelec.atomic_write import replacing
from ase_mlelec.train.checkpoint import check_identity, load_checkpoint, save_checkpoint
from ase_mlelec.train.finite import NotFinite, take_step

FORMAT = 2  # version of the format of checkpoints
LARGEST_GRADIENT = 10.0  # norm to which longer gradients are cut
LOG_LINES = 20  # log lines of a training without a progress bar


class Problem(Protocol):
    """Protocol of a training problem: batches, losses and errors for the loop.

    Attributes
    ----------
    model : Module
        Model whose whole state goes into the checkpoint.
    parameters : list of Tensor
        Parameters to train.
    identity : dict
        Texts and numbers that must agree with a checkpoint.
    watched : str
        Name of the error that decides about plateaus and best weights; "" for none.
    largest_gradient : float
        Norm to which longer gradients are cut.
    """

    model: Any
    parameters: list
    identity: dict
    watched: str
    largest_gradient: float

    def batches(self, step: int) -> Iterable[Any]:
        """Batches of a step of the loop, one for each step of the optimizer; several where the step is an epoch."""

    def loss(self, batch: Any, ratio: float) -> Iterable[Tensor]:
        """Parts of the loss of a batch; ``ratio`` is the learning rate relative to the first learning rate."""

    def errors(self) -> dict:
        """Errors for the learning curve, of the last batch or of held-out data."""

    def explained(self, failure: NotFinite, batch: Any, step: int, ratio: float, rate: float) -> Exception:
        """Diverged error for step ``step`` (from 1) that met NaN or infinity; ``batch`` is None in the validation."""


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

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> Any:
        """Scheduler of torch; it makes one step for each step of the loop."""
        if self.kind == "plateau":
            return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=self.patience - 1, threshold=0.0)
        if self.kind == "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=self.last)
        return lr_scheduler.ExponentialLR(optimizer, gamma=(self.last / self.first) ** (1 / steps))

    def ended(self, rate: float) -> bool:
        return self.kind == "plateau" and rate < self.last

    def __str__(self):
        waits = f", patience {self.patience}" if self.kind == "plateau" else ""
        return f"{self.first:g} to {self.last:g}, {self.kind}{waits}"


def run_loop(
    problem: Problem,
    *,
    steps: int,
    schedule: Schedule,
    interval: int = 1,
    checkpoint: str | Path | None = None,
    curve: str | Path | None = None,
    progress: bool = True,
    unit: str = "steps",
) -> dict:
    """Train with Adam; an interrupted run that is called again with its checkpoint ends with the same bits.

    Parameters
    ----------
    steps : int
        Number of steps; with a plateau schedule their largest number.
    interval : int
        Steps between validations, after each of which checkpoint and curve are written.
    checkpoint : path
        Read at the start when present.
    curve : path
        CSV file with a row of errors for each validation.
    progress : bool
        Whether to show a bar, or log lines where standard error is no terminal.

    Returns
    -------
    dict
        Errors of the best weights, where the problem watches an error, or else the last errors.

    Raises
    ------
    ValueError
        When a checkpoint belongs to another run or another version, or is damaged.
    Diverged
        When a loss, a gradient, a parameter or an error is not finite.
    """
    run = Run(problem, schedule, steps, checkpoint)
    with tqdm(total=steps, initial=run.step, disable=None if progress else True, unit=f" {unit}", mininterval=2) as bar:
        while run.step < steps and not schedule.ended(run.rate):
            validates = (run.step + 1) % interval == 0 or run.step + 1 == steps
            errors = run.make_step(validates)
            bar.update()
            if validates:
                bar.set_postfix({name: f"{error:.3g}" for name, error in errors.items()})
                run.save(curve)
                if progress and bar.disable and len(run.rows) % max(1, steps // interval // LOG_LINES) == 0:
                    print(f"{unit} {run.step}/{steps}: {_listed(run.rows[-1])}", file=sys.stderr, flush=True)
    return run.finish()


class Run:
    """State of a training: model, optimizer, schedule, step, learning curve and best weights."""

    def __init__(self, problem: Problem, schedule: Schedule, steps: int, path: str | Path | None):
        self.problem, self.first = problem, schedule.first
        self.step, self.best = 0, None
        self.rows: list = []
        self.optimizer = torch.optim.Adam(problem.parameters, lr=schedule.first)
        self.scheduler = schedule.scheduler(self.optimizer, steps)
        self.identity = problem.identity | {"steps": steps, "learning_rate": str(schedule)}
        self.path = Path(path) if path else None
        if self.path and self.path.exists():
            self._load()

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    def make_step(self, validates: bool) -> dict:
        """One step; returns the errors after it where it ``validates``, which become a row of the curve."""
        problem, rate, batch, errors = self.problem, self.rate, None, {}
        try:
            for batch in problem.batches(self.step):
                parts = problem.loss(batch, rate / self.first)
                take_step(parts, self.optimizer, problem.parameters, problem.largest_gradient)
            if validates:
                batch, errors = None, problem.errors()
                for name, error in errors.items():
                    if not np.isfinite(error):
                        raise NotFinite(f"error {name}")
        except NotFinite as failure:
            raise problem.explained(failure, batch, self.step + 1, rate / self.first, rate) from None
        self.step += 1
        if validates:
            self.rows.append({"step": self.step, "learning_rate": rate, **errors})
            self._keep_best()
        if not isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step()
        elif validates:
            self.scheduler.step(errors[problem.watched])
        return errors

    def finish(self) -> dict:
        """Put the best weights into the model; returns their errors, or the last errors where none is watched."""
        if self.best:
            self.problem.model.load_state_dict(self.best["model"])
        row = self.rows[self.best["row"] if self.best else -1] if self.rows else {}
        return {name: error for name, error in row.items() if name not in ("step", "learning_rate")}

    def save(self, curve: str | Path | None) -> None:
        """Write checkpoint and learning curve."""
        if self.path:
            state = {name: getattr(self, name).state_dict() for name in ("optimizer", "scheduler")}
            own = {name: getattr(self, name) for name in ("step", "rows", "best", "identity")}
            save_checkpoint(self.path, {"format": FORMAT, "model": self.problem.model.state_dict(), **state, **own})
        if curve:
            with replacing(curve) as partial, open(partial, "w", newline="") as file:
                # a batch without a label has no error for it
                writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in self.rows for key in row)))
                writer.writeheader()
                writer.writerows(self.rows)

    def _keep_best(self):
        name, rows = self.problem.watched, self.rows
        if name and (self.best is None or rows[-1][name] < rows[self.best["row"]][name]):
            weights = {key: value.clone() for key, value in self.problem.model.state_dict().items()}
            self.best = {"row": len(rows) - 1, "model": weights}

    def _load(self):
        state = load_checkpoint(self.path)
        if state.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} is a checkpoint of another version of ase-mlelec; remove it or choose another"
            )
        check_identity(self.path, state.get("identity"), self.identity)
        try:
            self.problem.model.load_state_dict(state["model"])
            for name in ("optimizer", "scheduler"):
                getattr(self, name).load_state_dict(state[name])
            self.step, self.rows, self.best = (state[name] for name in ("step", "rows", "best"))
        except (RuntimeError, ValueError, KeyError):
            raise ValueError(
                f"{self.path} belongs to a run with another model or other parameters; remove it or "
                "choose another checkpoint"
            ) from None


def batch_of_step(n: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Indices of the batch of a step: every epoch is shuffled, equally in interrupted and uninterrupted runs."""
    per_epoch = max(n // batch_size, 1)
    epoch, k = divmod(step, per_epoch)
    return np.random.default_rng([seed, epoch]).permutation(n)[k * batch_size : (k + 1) * batch_size]


def _listed(row):
    return ", ".join(f"{name} {value:.3g}" for name, value in row.items() if name != "step")
