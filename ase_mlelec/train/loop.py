"""Training loop for all models.

A recipe supplies a Problem: batches, losses and errors. The loop does everything else: steps of the optimizer, learning
rate, checks of gradients, validation, best weights, checkpoint, learning curve, resume, log lines and the stop.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ase_mlelec.train.interrupt import stopping
from ase_mlelec.train.log import Log
from ase_mlelec.train.problem import LARGEST_GRADIENT, Problem
from ase_mlelec.train.run import Run
from ase_mlelec.train.schedule import Schedule

__all__ = ["LARGEST_GRADIENT", "Problem", "Run", "Schedule", "batch_of_step", "run_loop"]


def run_loop(
    problem: Problem,
    *,
    steps: int | None,
    schedule: Schedule,
    interval: int | None = 1,
    checkpoint: str | Path | None = None,
    curve: str | Path | None = None,
    progress: bool | Log = True,
    unit: str = "steps",
    seconds: float | None = None,
    patience: int = 0,
    keep: Callable[[dict, dict], None] | None = None,
    identity: Mapping[str, Any] | None = None,
    may_lack: Collection[str] = (),
) -> dict:
    """Train with Adam; an interrupted run that is called again with its checkpoint ends with the same bits.

    A signal to stop (Ctrl-C, or the end of a job) is obeyed after the step, when checkpoint and model are written.
    Processes that work together (see ase_mlelec.processes) share the steps of those problems that allow it.

    A run whose checkpoint is that of another number of steps goes on from it: the learning rate rises to at least 0.3 of
    the first one, and falls over the steps that are left. In this way a finished run is lengthened.

    Parameters
    ----------
    steps : int or None
        Number of steps; with a plateau schedule their largest number. None: from ``seconds``.
    interval : int
        Steps between validations, after each of which checkpoint and curve are written. None: at most a hundred
        validations, which take at most a twentieth of the time.
    checkpoint : path
        Read at the start when present.
    curve : path
        CSV file with a row of errors for each validation.
    progress : bool or Log
        Whether to show a bar and lines, or the Log that shows them.
    seconds : float
        Time for the training, in place of ``steps``. The learning rate is constant until the time of a step is known,
        and then falls over the steps for which there is time. Their number is in the checkpoint.
    patience : int
        Validations in a row without a new minimum of the watched error after which training ends; 0: never.
    keep : callable(state dict of the best weights so far, dict of where the training is)
        Writes a model; it is called in the first minute, and then about once a minute.
    identity : dict
        Further texts and numbers that must agree with a checkpoint. A finished run of another identity is then no error:
        training starts anew.
    may_lack : collection of str
        Keys of ``identity`` that a checkpoint of an earlier version may lack, see check_identity.

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
    Interrupted
        After a signal to stop.
    """
    log = Log.of(progress)
    run = Run(
        problem,
        schedule,
        steps,
        checkpoint,
        interval=interval,
        curve=curve,
        seconds=seconds,
        patience=patience,
        keep=keep,
        unit=unit,
        identity=identity,
        may_lack=may_lack,
    )
    _begin_log(log, run)
    with stopping() as stop, log.progress(total=run.end, done=run.step, unit=unit):
        while not run.ended:
            errors = run.make_step(stop)
            if stop.agreed():
                run.interrupted(stop)
            if errors is not None:
                run.save()
            if run.due:
                run.keep_all()
            log.advance(run.end)
            if log.due or (run.ended and log.show):
                log.line(run.line(log))
    return run.finish()


def _begin_log(log, run):
    """Block about a run, and what its checkpoint meant for it."""
    problem = run.problem
    about = dict(getattr(problem, "about", {}))
    if about:
        about["errors"] = f"of a step / {'of what is watched' if problem.watched else 'of all training data'}"
    files = {"checkpoint": str(run.path or ""), "learning curve": str(run.curve or "")}
    log.block(f"training {getattr(problem, 'title', '')}".rstrip(), log.about | about | files)
    if run.told:
        log.tell(run.told)


def batch_of_step(n: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Indices of the batch of a step: every epoch is shuffled, equally in interrupted and uninterrupted runs."""
    per_epoch = max(n // batch_size, 1)
    epoch, k = divmod(step, per_epoch)
    return np.random.default_rng([seed, epoch]).permutation(n)[k * batch_size : (k + 1) * batch_size]
