"""Gradient descent for quantities of atoms and their sums."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_mlelec import processes
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.deprecated import former_names
from ase_mlelec.model import Model
from ase_mlelec.train.finite import Diverged, NotFinite, explained
from ase_mlelec.train.log import Log, counted
from ase_mlelec.train.loop import LARGEST_GRADIENT, Schedule, batch_of_step, run_loop
from ase_mlelec.train.losses import check_terms
from ase_mlelec.train.spreads import error_spreads

MOST_ATOMS = 2000  # of a batch of validation, which may be several large cells
MOST_HELD = 64  # structures whose errors are watched during training


def fit(
    model: Model,
    frames: Frames,
    loss: Callable,
    *,
    steps: int | None = None,
    validation: Frames | None = None,
    batch_size: int = 8,
    learning_rate: tuple[float, float] = (2e-3, 1e-6),
    parameters: Iterable[torch.nn.Parameter] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    curve: str | Path | None = None,
    interval: int | None = None,
    progress: bool | Log = True,
    **options: Any,
) -> dict:
    """Minimize ``loss`` over ``frames`` with Adam and a learning rate that falls exponentially, r = r0 d^(t/steps).

    With ``validation``, the model gets the parameters for which the errors of validation, in units of the spread of
    their labels, were smallest. An interrupted run that is called again with its checkpoint ends with the same
    parameters, to the bit.

    Parameters
    ----------
    model : Model
        Trained in place, with its dtype and on its device.
    frames, validation : Frames
        At most 64 structures of ``validation`` are watched, from all of its parts.
    loss : callable(model, batch, ratio) -> (value, dict of mean squared errors)
        See ase_mlelec.train.losses.
    steps : int
        Or ``seconds``, see ``options``.
    learning_rate : (first, last)
    parameters
        Parameters to train; default all. The descriptor is evaluated only once where its parameters are not trained and
        the loss does not move atoms.
    checkpoint : path
        Written every ``interval`` steps, and read at the start when the file exists.
    curve : path of a CSV file with root mean square errors every ``interval`` steps
        Those of the training are means over the steps since the row before.
    interval : int
        Steps between validations; default so many that validation takes at most a twentieth of the time.
    options
        Further arguments of ase_mlelec.train.loop.run_loop: ``seconds``, ``patience``, ``keep``, ``identity``.

    Returns
    -------
    dict of float
        Root mean square errors of the parameters that the model gets; keys of validation errors begin with
        ``"validation_"``.

    Raises
    ------
    ValueError
        For frames without any label of the loss, labels of a wrong shape or that are not finite, and a checkpoint that
        belongs to another run or is damaged.
    Diverged
        When a loss, a gradient or a parameter is not finite.
    Interrupted
        After a signal to stop, when everything is saved.

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
        **options,
    )


class FrameProblem:
    """Loss and errors of ``fit``, as a Problem of the training loop (see ase_mlelec.train.loop)."""

    largest_gradient = LARGEST_GRADIENT

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
        self.train, self.held = (
            _prepare(model, part, loss, self.parameters) for part in (frames, _evenly(validation, MOST_HELD))
        )
        self.squares: dict = {}
        self.spreads = error_spreads(self.train, loss)
        self.watched = "validation_relative" if self.held is not None else ""
        self.identity = {
            "seed": seed,
            "batch_size": batch_size,
            "loss": f"{type(loss).__name__} {vars(loss)}",
            "frames": frames.fingerprint(),
        }
        self.title = f"{getattr(loss, 'quantity', '')} of {', '.join(model.species)}".strip()
        self.about = self._described(frames, loss)

    @property
    def validation_cost(self) -> float:
        """Time of the errors of validation over that of a step: without the gradient of the loss, a third per atom."""
        if self.held is None:
            return 0.0
        held, train = (sum(len(system.positions) for system in part.systems) for part in (self.held, self.train))
        return held / 3 / (self.batch_size * train / len(self.train))

    def _described(self, frames, loss):
        """Rows of the block at the start of the log."""
        device, counts = self.parameters[0].device, frames.counts
        numbers = sum(parameter.numel() for parameter in self.parameters)
        precision = "single" if self.model.dtype == torch.float32 else "double"
        threads = f", {torch.get_num_threads()} thread(s)" if device.type == "cpu" else ""
        watched = f"{len(self.train)} to train on, " + (f"{len(self.held)} watched" if self.held else "none watched")
        return {
            "frames": f"{watched}, {self.batch_size} in a step",
            "labels": counted((counts.get(name, 0), name) for name in getattr(loss, "labels", ())),
            "weights": ", ".join(_weight_text(name, getattr(loss, name, None)) for name in getattr(loss, "terms", ())),
            "parameters": f"{numbers}, {precision} precision, {device}{threads}",
        }

    def batches(self, step: int) -> Iterator:
        yield batch_of_step(len(self.train), self.batch_size, self.seed, step)

    @property
    def shared(self) -> bool:
        """Whether each of several processes takes a part of a batch, so that gradients are to be added."""
        return processes.world() > 1 and getattr(self.of_batch, "can_be_shared", False)

    def loss(self, batch: Sequence[int], ratio: float) -> Iterator:
        if self.shared:
            yield from self._shared_loss(batch, ratio)
            return
        value, squares = self.of_batch(self.model, self.train.batch(batch), ratio)
        self.squares = {name: square.detach() for name, square in squares.items()}
        yield value

    def _shared_loss(self, batch, ratio):
        """Loss of the part of a batch that this process has; nothing where it has none."""
        own, squares = list(processes.mine(batch)), {}
        if own:
            shares = _shares(self.model, self.train, own, batch, self.of_batch)
            part = replace(self.train.batch(own), shares=shares)
            value, squares = self.of_batch(self.model, part, ratio)
            yield value
        found = processes.summed({name: float(square.detach()) for name, square in squares.items()})
        self.squares = {name: found[name] for name in (*self.of_batch.sources, *found) if name in found}  # as by one

    def errors(self) -> dict[str, float]:
        if self.held is None:
            return {}
        errors = evaluate_loss(self.model, self.held, self.of_batch)
        relative = [(error / self.spreads.get(name, 1.0)) ** 2 for name, error in errors.items()]
        found = {f"validation_{name}": error for name, error in errors.items()}
        return found | {self.watched: (sum(relative) / len(relative)) ** 0.5}

    def explained(
        self, failure: NotFinite, batch: Sequence[int] | None, step: int, ratio: float, rate: float
    ) -> Diverged:
        return explained(failure, self.model, self.train, batch, self.of_batch, ratio, step, rate, self.parameters)


def _shares(model, batches, own, whole, loss):
    """Shares of the structures ``own`` in those of ``whole`` that have some of the labels, dict by labels.

    Each is the share of the structures, of their atoms, and of the atoms with a value; labels are tuples of names.
    """
    sources = [tuple(filter(None, names)) for names in getattr(loss, "sources", {}).values()]
    wanted = {(name,) for name in loss.labels} | set(sources)
    sizes, found = {k: _sizes(model, batches.systems[k].numbers, loss.quantity) for k in whole}, {}
    for labels in wanted:
        mine, every = (
            sum((sizes[k] for k in chosen if any(name in batches.labels[k] for name in labels)), start=np.zeros(3))
            for chosen in (own, whole)
        )
        found[labels] = (mine / np.maximum(every, 1)).tolist()
    return found


def _sizes(model, numbers, quantity):
    """Of a structure: 1, number of atoms, number of atoms with a value."""
    return np.array([1, len(numbers), int(model.is_center(numbers, quantity).sum())])


def _weight_text(name, weight):
    """Weight of a term of a loss, such as "forces 10 to 1"."""
    if not isinstance(weight, tuple):
        return f"{name} {weight:g}" if isinstance(weight, (int, float)) else name
    return f"{name} {weight[0]:.3g} to {weight[1]:.3g}"


def _evenly(frames, most):
    """At most so many of the frames, from all of their parts."""
    if not frames or len(frames) <= most:
        return frames
    return frames.take(np.linspace(0, len(frames) - 1, most).round().astype(int).tolist())


def _prepare(model, frames, loss, parameters):
    """Batches of ``frames``, with environments where the descriptor is fixed; None for no frames."""
    if not frames:
        return None
    batches = Batches.for_model(model, frames, loss.labels).with_label(*loss.labels)
    if not len(batches):
        return None
    trained = {id(parameter) for parameter in parameters}
    moves = getattr(loss, "moves_atoms", True)
    name = getattr(loss, "quantity", None)
    descriptor = model.descriptor_of(name) if name in model.heads else model.descriptor
    if moves or any(id(parameter) in trained for parameter in descriptor.parameters()):
        return batches.prepare(descriptor)
    return batches.fix(descriptor)


@torch.no_grad()
def evaluate_loss(model: Model, batches: Batches, loss: Any, batch_size: int = 16) -> dict:
    """Root mean square errors over all frames, dict by label; batches count by their frames with the label."""
    totals: dict = {}
    sources: dict = getattr(loss, "sources", {})

    def of_batch(batch):
        _, squares = loss(model, batch, 0.0)
        labels = {name: sources.get(name, loss.labels) for name in squares}
        having = {name: sum(map(batch.has, own), start=torch.tensor(0)) > 0 for name, own in labels.items()}
        return [(name, int(having[name].sum()), float(square)) for name, square in squares.items()]

    own = processes.mine(batches.all_batches(batch_size, most_atoms=MOST_ATOMS))
    for row in processes.in_turn(list(map(of_batch, own))):
        for name, n, square in row:
            total, count = totals.get(name, (0.0, 0))
            totals[name] = total + n * square, count + n
    return {name: (total / count) ** 0.5 for name, (total, count) in totals.items()}


__getattr__ = former_names(
    __name__, standardise="train.standardize:standardize", standardise_heads="train.standardize:standardize_heads"
)
