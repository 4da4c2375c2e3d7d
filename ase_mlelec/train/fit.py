"""Gradient descent for quantities of atoms and their sums."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.deprecated import former_names
from ase_mlelec.model import Model
from ase_mlelec.train.finite import Diverged, NotFinite, explained
from ase_mlelec.train.loop import LARGEST_GRADIENT, Schedule, batch_of_step, run_loop
from ase_mlelec.train.losses import check_terms


def fit(
    model: Model,
    frames: Frames,
    loss: Callable,
    *,
    steps: int,
    validation: Frames | None = None,
    batch_size: int = 8,
    learning_rate: tuple[float, float] = (2e-3, 1e-6),
    parameters: Iterable[torch.nn.Parameter] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    curve: str | Path | None = None,
    interval: int = 200,
    progress: bool = True,
) -> dict:
    """Minimize ``loss`` over ``frames`` with Adam and a learning rate that falls exponentially, r = r0 d^(t/steps).

    An interrupted run that is called again with its checkpoint ends with the same parameters, to the bit.

    Parameters
    ----------
    model : Model
        Trained in place, with its dtype and on its device.
    frames, validation : Frames
    loss : callable(model, batch, ratio) -> (value, dict of mean squared errors)
        See ase_mlelec.train.losses.
    learning_rate : (first, last)
    parameters
        Parameters to train; default all. The descriptor is evaluated only once where its parameters are not trained and
        the loss does not move atoms.
    checkpoint : path
        Written every ``interval`` steps, and read at the start when the file exists.
    curve : path of a CSV file with root mean square errors every ``interval`` steps

    Returns
    -------
    dict of float
        Last root mean square errors; keys of validation errors begin with ``"validation_"``.

    Raises
    ------
    ValueError
        For frames without any label of the loss, labels of a wrong shape or that are not finite, and a checkpoint that
        belongs to another run or is damaged.
    Diverged
        When a loss, a gradient or a parameter is not finite.

    References
    ----------
    Learning rate, Rottenberg 2023, Eq. (2.22).
    """
    check_terms(loss, frames)
    problem = FrameProblem(model, frames, loss, validation, batch_size, parameters, seed)
    return run_loop(
        problem,
        steps=steps,
        schedule=Schedule(*learning_rate),
        interval=interval,
        checkpoint=checkpoint,
        curve=curve,
        progress=progress,
    )


class FrameProblem:
    """Loss and errors of ``fit``, as a Problem of the training loop (see ase_mlelec.train.loop)."""

    watched, largest_gradient = "", LARGEST_GRADIENT

    def __init__(
        self,
        model: Model,
        frames: Frames,
        loss: Callable,
        validation: Frames | None = None,
        batch_size: int = 8,
        parameters: Iterable[torch.nn.Parameter] | None = None,
        seed: int = 0,
    ):
        self.model, self.of_batch, self.batch_size, self.seed = model, loss, batch_size, seed
        self.parameters = list(model.parameters() if parameters is None else parameters)
        self.train, self.held = (_prepare(model, part, loss, self.parameters) for part in (frames, validation))
        self.identity = {
            "seed": seed,
            "batch_size": batch_size,
            "loss": f"{type(loss).__name__} {vars(loss)}",
            "frames": frames.fingerprint(),
        }

    def batches(self, step: int) -> Iterator:
        yield batch_of_step(len(self.train), self.batch_size, self.seed, step)

    def loss(self, batch: Sequence[int], ratio: float) -> Iterator:
        value, self.squares = self.of_batch(self.model, self.train.batch(batch), ratio)
        yield value

    def errors(self) -> dict[str, float]:
        errors = {name: float(square.detach()) ** 0.5 for name, square in self.squares.items()}
        if self.held is None:
            return errors
        return errors | {f"validation_{k}": e for k, e in evaluate_loss(self.model, self.held, self.of_batch).items()}

    def explained(
        self, failure: NotFinite, batch: Sequence[int] | None, step: int, ratio: float, rate: float
    ) -> Diverged:
        return explained(failure, self.model, self.train, batch, self.of_batch, ratio, step, rate, self.parameters)


def _prepare(model, frames, loss, parameters):
    """Batches of ``frames``, with environments where the descriptor is fixed; None for no frames."""
    if not frames:
        return None
    batches = Batches.for_model(model, frames, loss.labels).with_label(*loss.labels)
    if not len(batches):
        return None
    trained = {id(parameter) for parameter in parameters}
    descriptor = model.electronic or model.descriptor
    fixed = not any(id(parameter) in trained for parameter in descriptor.parameters())
    return batches.fix(descriptor) if fixed and not getattr(loss, "moves_atoms", True) else batches


@torch.no_grad()
def evaluate_loss(model: Model, batches: Batches, loss: Any, batch_size: int = 16) -> dict:
    """Root mean square errors over all frames, dict by label; batches count by their frames with the label."""
    totals: dict = {}
    sources: dict = getattr(loss, "sources", {})
    for batch in batches.all_batches(batch_size):
        _, squares = loss(model, batch, 0.0)
        for name, square in squares.items():
            having = sum((batch.has(label) for label in sources.get(name, loss.labels)), start=torch.tensor(0)) > 0
            n, (total, count) = int(having.sum()), totals.get(name, (0.0, 0))
            totals[name] = total + n * float(square), count + n
    return {name: (total / count) ** 0.5 for name, (total, count) in totals.items()}


__getattr__ = former_names(
    __name__, standardise="train.standardize:standardize", standardise_heads="train.standardize:standardize_heads"
)
