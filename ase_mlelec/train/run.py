"""State of a training: what a checkpoint holds, when it ends, and what follows each of its steps."""

import csv
import math
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_mlelec import processes
from ase_mlelec.atomic_write import replacing
from ase_mlelec.train.checkpoint import check_identity, load_checkpoint, save_checkpoint
from ase_mlelec.train.finite import NotFinite, take_step
from ase_mlelec.train.interrupt import Interrupted, Stop
from ase_mlelec.train.log import Log, duration, readable_errors
from ase_mlelec.train.problem import Problem
from ase_mlelec.train.schedule import RESTART, Leg, Schedule

clock = time.monotonic
FORMAT = 3  # version of the format of checkpoints
VALIDATIONS = 100  # at most so many in a training whose interval is not given
MOST_VALIDATION = 0.05  # of the time of the steps
FIRST_SAVE, SAVE = 10.0, 60.0  # s: until the first save, and between later ones, of checkpoint and model
RARE = 50  # saves are this times rarer than they take
MEASURED, SHARE = 10, 0.05  # a budget of time is measured over so many steps, and over this share of it
OVERHEAD = 1.08  # time of a training over the time of its steps: validations and saves


class Run:
    """State of a training: model, optimizer, schedule, step, learning curve and best weights.

    Parameters
    ----------
    path : path
        Checkpoint.
    steps, interval, curve, seconds, patience, keep, unit, identity
        As in ase_mlelec.train.loop.run_loop.

    Attributes
    ----------
    plan : list of Leg
        Stretches with a falling learning rate; empty until a budget of time has been measured.
    told : str
        What the checkpoint meant for this run, for the log.
    """

    STATE = ("step", "rows", "best", "identity", "sums", "seconds", "budget", "complete")

    def __init__(
        self,
        problem: Problem,
        schedule: Schedule,
        steps: int | None,
        path: str | Path | None,
        *,
        interval: int | None = None,
        curve: str | Path | None = None,
        seconds: float | None = None,
        patience: int = 0,
        keep: Callable[[dict, dict], None] | None = None,
        unit: str = "steps",
        identity: Mapping[str, Any] | None = None,
        may_lack: Collection[str] = (),
    ):
        if steps is None and seconds is None:
            raise ValueError("got neither a number of steps nor a time for the training; give one of them")
        self.problem, self.schedule, self.patience, self.unit = problem, schedule, patience, unit
        self.interval, self.keep, self.curve = interval, keep, curve
        self.step, self.best, self.told = 0, None, ""
        self.complete = False  # all steps were made
        self.divided = False  # a step of several batches was given up
        self.rows: list = []
        self.sums: dict = {}  # of the mean squared errors of batches since the last row
        self.seconds = 0.0  # spent in steps
        self.budget = None if steps is not None else seconds
        self.plan = [] if steps is None else [Leg(0, steps, schedule.first)]
        self.optimizer = torch.optim.Adam(problem.parameters, lr=schedule.first, fused=True)
        self.plateaus = schedule.plateaus(self.optimizer)
        self.identity = problem.identity | dict(identity or {}) | {"learning_rate": str(schedule)}
        self.may_lack = may_lack
        self.path = Path(path) if path else None
        if self.path and self.path.exists():
            self._load(steps, may_renew=identity is not None)
        self.saved, self.took = clock(), 0.0
        self.fresh = True  # nothing was saved in this call

    @property
    def end(self) -> int | None:
        """Number of steps; None until it is known."""
        return self.plan[-1].end if self.plan else None

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        if self.plateaus is not None:
            return self.optimizer.param_groups[0]["lr"]
        return self.schedule.rate(self.plan[-1], self.step) if self.plan else self.schedule.first

    @property
    def ended(self) -> bool:
        if self.end is None:
            return False
        return self.step >= self.end or self.schedule.ended(self.rate) or self._stalled()

    def _stalled(self):
        """Whether there was no new minimum for so long that training ends; minima of former legs do not count."""
        if not (self.patience and self.problem.watched):
            return False
        errors = [row[self.problem.watched] for row in self.rows if row["step"] > self.plan[-1].start]
        return bool(errors) and len(errors) - 1 - errors.index(min(errors)) >= self.patience

    @property
    def validates(self) -> bool:
        """Whether errors follow the next step."""
        if self.end is None:
            return False
        interval = self.interval
        if interval is None:
            cost = getattr(self.problem, "validation_cost", 0.0)
            interval = max(math.ceil((self.end - self.plan[-1].start) / VALIDATIONS), math.ceil(cost / MOST_VALIDATION))
        return (self.step + 1) % interval == 0 or self.step + 1 == self.end

    def make_step(self, stop: Stop | None = None) -> dict | None:
        """One step; returns the errors after it where it ``validates``, which become a row of the curve.

        A step of several batches is given up where ``stop`` is set between them; it is not counted then.
        """
        problem, rate, batch, errors, begun = self.problem, self.rate, None, None, clock()
        validates, ratio = self.validates, rate / self.schedule.first
        self.optimizer.param_groups[0]["lr"] = rate
        try:
            for k, batch in enumerate(problem.batches(self.step)):
                if k and stop is not None and stop.agreed():
                    self.divided = True
                    return None
                take_step(
                    problem.loss(batch, ratio),
                    self.optimizer,
                    problem.parameters,
                    problem.largest_gradient,
                    shared=getattr(problem, "shared", False),
                )
                self._add_squares()
            if validates:
                batch, errors = None, problem.errors()
                for name, error in errors.items():
                    if not np.isfinite(error):
                        raise NotFinite(f"error {name}")
        except NotFinite as failure:
            raise problem.explained(failure, batch, self.step + 1, ratio, rate) from None
        self.step += 1
        if errors is not None:
            self.rows.append({"step": self.step, "learning_rate": rate, **self._training_errors(), **errors})
            self.sums = {}
            self._keep_best()
            if self.plateaus is not None:
                self.plateaus.step(errors[problem.watched])
        self.seconds += clock() - begun
        if not self.plan:
            self._measure()
        self.complete = self.ended
        return errors

    def _add_squares(self):
        for name, square in getattr(self.problem, "squares", {}).items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + float(square), count + 1

    def _training_errors(self):
        return {name: (total / count) ** 0.5 for name, (total, count) in self.sums.items()}

    def _measure(self):
        """Set the number of steps by the time that a step takes, once that is known."""
        if processes.of_first(self.step >= MEASURED and self.seconds >= SHARE * self.budget):
            self.plan.append(Leg(self.step, self._affordable(), self.rate))

    def _affordable(self):
        """Number of steps for which the budget suffices, by the clock of the first process."""
        each = OVERHEAD * self.seconds / self.step
        return processes.of_first(self.step + max(1, int((self.budget - self.seconds) / each)))

    def finish(self) -> dict:
        """Put the best weights into the model; returns their errors, or the last errors where none is watched."""
        if self.best:
            self.problem.model.load_state_dict(self.best["model"])
        row = self.rows[self.best["row"] if self.best else -1] if self.rows else {}
        return {name: error for name, error in row.items() if name not in ("step", "learning_rate")}

    def line(self, log: Log) -> str:
        """Line of the log: step, time left, learning rate, errors."""
        row = self._training_errors()
        row = (self.rows[-1] if self.rows else {}) | row
        errors = readable_errors({key: value for key, value in row.items() if key not in ("step", "learning_rate")})
        if self.end is None:
            return f"{self.unit} {self.step}, measuring their time: {errors}"
        left = (
            f"{duration(log.left(self.step, self.end))} left" if not self.ended else f"{duration(self.seconds)} in all"
        )
        return f"{self.unit} {self.step}/{self.end}, {left}, rate {self.rate:.1e}: {errors}"

    @property
    def due(self) -> bool:
        """Whether the time has come for a save of checkpoint and model."""
        return clock() - self.saved > max(FIRST_SAVE if self.fresh else SAVE, RARE * self.took)

    def keep_all(self) -> None:
        """Write checkpoint, learning curve and model; no checkpoint from within a step."""
        begun = clock()
        if not self.divided:
            self.save()
        if self.keep:
            state = self.best["model"] if self.best else self.problem.model.state_dict()
            self.keep(state, {self.unit: self.step, "of": self.end})
        self.saved, self.fresh = clock(), False
        self.took = self.saved - begun

    def interrupted(self, stop: Stop) -> None:
        """Save, and raise Interrupted, which says how to go on."""
        self.keep_all()
        of = "" if self.end is None else f" of {self.end}"
        how = f"; the same command goes on from {self.path.name}" if self.path else ", without a checkpoint"
        raise Interrupted(f"interrupted after {self.step}{of} {self.unit}{how}", 128 + stop.number)

    def save(self) -> None:
        """Write checkpoint and learning curve."""
        if self.path:
            state = {"model": self.problem.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            state["plateaus"] = self.plateaus and self.plateaus.state_dict()
            state["plan"] = [[leg.start, leg.end, leg.first] for leg in self.plan]
            own = {name: getattr(self, name) for name in self.STATE}
            save_checkpoint(self.path, {"format": FORMAT, **state, **own})
        if self.curve:
            with replacing(self.curve) as partial, open(partial, "w", newline="") as file:
                # a batch without a label has no error for it
                writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in self.rows for key in row)))
                writer.writeheader()
                writer.writerows(self.rows)

    def _keep_best(self):
        name, rows = self.problem.watched, self.rows
        if name and (self.best is None or rows[-1][name] < rows[self.best["row"]][name]):
            weights = {key: value.clone() for key, value in self.problem.model.state_dict().items()}
            self.best = {"row": len(rows) - 1, "model": weights}

    def _load(self, steps, may_renew):
        state = load_checkpoint(self.path)
        if state.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} is a checkpoint of another version of ase-mlelec; remove it or choose another"
            )
        try:
            check_identity(self.path, state.get("identity"), self.identity, may_lack=self.may_lack)
        except ValueError as error:
            if not (may_renew and state.get("complete")):
                raise
            self.told = f"{error}".partition(";")[0] + ": it had ended, and training starts anew"
            return
        try:
            former = self._restore(state)
        except (RuntimeError, ValueError, KeyError):
            raise ValueError(
                f"{self.path} belongs to a run with another model or other parameters; remove it or "
                "choose another checkpoint"
            ) from None
        self._plan_anew(steps, former)

    def _restore(self, state):
        self.problem.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.plateaus is not None:
            self.plateaus.load_state_dict(state["plateaus"])
        given = self.budget
        for name in self.STATE:
            setattr(self, name, state[name])
        self.plan = [Leg(*leg) for leg in state["plan"]]
        former, self.budget = self.budget, given
        return former

    def _plan_anew(self, steps, former):
        """Compare the number of steps, or the budget, with those of the checkpoint, and add a Leg where they differ."""
        end = steps
        if end is None:
            end = self._affordable() if self.plan and self.budget != former else self.end
        made = f"{self.path.name}: {self.step} {self.unit} were made before"
        self.told = f"{made}, training goes on" if not self.complete else f"{made}, which are all"
        if end == self.end:
            return
        rate = max(self.rate, RESTART * self.schedule.first)
        self.plan.append(Leg(self.step, max(end, self.step), rate))
        if self.plateaus is not None:
            self.optimizer.param_groups[0]["lr"] = rate
            self.plateaus.num_bad_epochs = 0
        self.complete = self.ended
        if not self.complete:
            self.told = f"{made}, now of {end}: the learning rate is {rate:.2g} again"
