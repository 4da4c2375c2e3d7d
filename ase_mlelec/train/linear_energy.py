"""Linear energy models: ridge regression to energies, forces and virials."""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ase_mlelec import processes
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames, join
from ase_mlelec.matrices import cholesky
from ase_mlelec.model import Model
from ase_mlelec.train.checked_rows import checked_rows, held_rows
from ase_mlelec.train.choice import FEW, Choice, RowsByLabel, SumsByLabel, choose, solved, units_of
from ase_mlelec.train.deviations import Deviations
from ase_mlelec.train.energy_rows import largest_batch, n_rows
from ase_mlelec.train.finite import Diverged, closed_form
from ase_mlelec.train.left_out import left_out_energies, left_out_of_rows
from ase_mlelec.train.linear import RidgeRegression, digest_of, sum_rows
from ase_mlelec.train.log import Log
from ase_mlelec.train.losses import EnergyLoss, check_terms
from ase_mlelec.train.memory import NUMBER, check_memory, memory_suffices
from ase_mlelec.uncertainty.covariance import EXACT, N_DIRECTIONS, inverse_factor, posterior_of_rows

BATCH = 4  # structures at a time in a fit with a choice of weights
ROWS = 1000  # at a time, copied with their weights
ATOMS = 200  # of a batch of several structures: the derivatives of 4,000 features of 100 atoms fill 0.7 GB
FEW_ROWS = 0.5  # with fewer labels than this times the weights, a matrix of the size of the labels is solved, ...
MANY_WEIGHTS = EXACT  # ... with more weights than this, whose error bars are made of samples in either case
REMEDY = (
    "take fewer features: in [power_spectrum] near = 0 (no quadruples) or a lower n_radial, l_max or roughest, "
    "in [descriptor] fewer widths or a lower n_axis; or fewer species in one model"
)


def fit_linear(
    model: Model,
    frames: Frames,
    loss: EnergyLoss,
    ridge: float,
    *,
    batch_size: int = 16,
    checkpoint: str | Path | None = None,
    progress: bool | Log = True,
) -> None:
    """Fit an energy head without hidden layers to energies, forces and virials by ridge regression.

    The fit minimizes the sum over structures of ``loss``, with its last prefactors, plus a ridge on the change of the
    weights; in a new model the change is measured from zero. A structure without one of the labels adds no rows for that
    label. The weight of its other labels is the same as in a set where every structure has every label.

    Data sets of many species can have fewer labels than half the weights. The same solution is then found from a matrix
    of the size of the labels, without a checkpoint.

    Parameters
    ----------
    model : Model
        Trained in place; the descriptor does not change.
    frames, loss : Frames, EnergyLoss
    ridge : float
        In units of the mean diagonal element of the normal matrix (see ase_mlelec.train.linear).
    checkpoint : path
        Read at the start when the file exists. It holds the sums over the structures so far, P^2 numbers for P weights.
        An interrupted fit continues from it and ends with the same weights, to the bit; the ridge may differ.

    Raises
    ------
    ValueError
        For labels of a wrong shape or that are not finite, frames without any label of the loss, matrices larger than
        the free memory, and a checkpoint that belongs to another fit or is damaged.
    Diverged
        When rows or the solution are not finite.

    References
    ----------
    Thompson et al. 2015, J. Comput. Phys. 285, 316, for the linear fit without a ridge.
    """
    roots = {name: ends[1] ** 0.5 for name, ends in prefactors(loss).items()}

    def joined(rows):
        columns = zip(*([roots[name] * part for part in pair] for name, pair in rows.items()))
        return tuple(torch.cat(list(column)) for column in columns)

    check_terms(loss, frames)
    batch_size = _fewer_of_large(frames, batch_size)
    few = _few_rows(frames, loss, _n_weights(model), batch_size)
    regression = RidgeRegression(dual=few)
    remedy = f"give a ridge larger than {ridge:g}, or check the labels. Nothing was saved"
    with closed_form("the closed form of the energy", remedy):
        _sum(regression, model, frames, loss, joined, batch_size, checkpoint, progress)
        Log.of(progress).tell(f"solving for {_n_weights(model)} weights")
        _add(model, regression.solve(ridge=ridge), remedy)


def fit_with_weights(
    model: Model,
    frames: Frames,
    loss: EnergyLoss,
    weights: Mapping[str, float],
    ridge: float,
    *,
    in_order: Frames | None = None,
) -> "ChosenFit":
    """As ``fit_linear``, with a weight of each label in units of the inverse sum of its squares, see Choice.

    ``in_order`` as in ``fit_by_choice``.

    Raises
    ------
    ValueError
        For matrices larger than the free memory.
    Diverged
        When rows or the solution are not finite.
    """
    few = _few_rows(frames, loss, _n_weights(model), 1, n_matrices=_n_matrices([], loss, _n_weights(model)))
    equations, before = RowsByLabel() if few else SumsByLabel(), copy.deepcopy(model)
    _add_rows(equations, model, frames, loss)
    solution, choice = solved(equations, Choice(ridge, dict(weights), {}))
    _add(model, solution, "check the labels. Nothing was saved")
    return ChosenFit(choice, **_for_bars(equations, choice, solution, before, frames, in_order, loss))


def fit_by_choice(
    model: Model,
    frames: Frames,
    loss: EnergyLoss,
    *,
    held: Sequence[Frames],
    validation: Frames | None = None,
    in_order: Frames | None = None,
    ridge: float | None = None,
    batch_size: int = BATCH,
    checkpoint: str | Path | None = None,
    progress: bool | Log = True,
) -> "ChosenFit":
    """As ``fit_linear``, with weights of the labels, and a ridge, that are chosen by the errors on held-out structures.

    After the choice, the held-out structures are fitted as well.

    Parameters
    ----------
    loss : EnergyLoss
        Its labels count, and its weights of atoms and structures; its prefactors do not.
    held : sequence of Frames
        Folds of structures with labels, by whose errors is chosen. For the errors of one the others are fitted too.
    ridge : float, optional
        A ridge that is given, and not chosen.
    validation : Frames, optional
        Structures that are not fitted, but whose effect on the weights is computed.
    in_order : Frames, optional
        The structures of ``frames`` and ``held`` by whose energies error bars are calibrated, in the order of
        trajectories; None for a fit without error bars.
    """
    batch_size = _fewer_of_large(frames, batch_size)
    every, n_weights = join([frames, *held]), _n_weights(model)
    check_terms(loss, every)
    few = _few_rows(every, loss, n_weights, batch_size, n_matrices=_n_matrices(held, loss, n_weights))
    equations, batch_size = (RowsByLabel(), 1) if few else (SumsByLabel(), batch_size)
    remedy = "check the labels. Nothing was saved"
    with closed_form("the closed form of the energy", remedy):
        if len(frames):  # all may be in folds
            _sum(equations, model, frames, loss, lambda rows: (rows,), batch_size, checkpoint, progress)
        choice = _chosen(equations, model, held, loss, ridge, progress)
        Log.of(progress).tell(f"solving with all {len(every)} structures")
        before = copy.deepcopy(model)  # rows are made with the weights from before
        solution, choice = solved(equations, choice)
        _add(model, solution, remedy)
        found = _for_bars(equations, choice, solution, before, every, in_order, loss)
        change = None
        if validation is not None and len(validation):
            _add_rows(equations, before, validation, loss)
            change = solved(equations, choice)[0] - solution
    return ChosenFit(choice, change=change, **found)


def _chosen(equations, model, held, loss, ridge, progress):
    """Choice by the errors of folds, whose rows are in the sums at the end."""
    folds = [held_rows(model, each, loss, progress=progress) for each in held]
    bare = [{name: (matrix, targets) for name, (matrix, targets, _) in rows.items()} for rows in folds]
    of = f"{sum(map(len, held))} structures" + (f" in {len(held)} folds" if len(held) > 1 else "")
    Log.of(progress).tell(f"choosing ridge and weights by {of}, with {_n_weights(model)} weights")
    if equations.dual:  # few rows, which error bars need one structure after the other
        for k, each in enumerate(held):
            _add_rows(equations, model, each, loss, fold=k)
        return choose(equations, bare, ridge=ridge)
    if len(folds) == 1:  # as its rows are not in the sums yet, they need no sums of their own
        choice = choose(equations, bare, ridge=ridge)
        _add_held(equations, folds[0])
        return choice
    for k, rows in enumerate(folds):
        _add_held(equations, rows, fold=k)
    choice = choose(equations, bare, ridge=ridge)
    equations.forget_folds()
    return choice


def _add_held(equations, rows, fold=None):
    """Add what ``held_rows`` gives to the sums, with its weights."""
    for name, (matrix, targets, ratio) in rows.items():
        for some in torch.arange(len(ratio)).split(ROWS):
            weighted = ratio[some, None] * matrix[some], ratio[some] * targets[some]
            equations.add({name: weighted}, fold=fold)


def _for_bars(equations, choice, solution, model, frames, in_order, loss):
    """What ChosenFit has for error bars; empty without them. ``frames`` are all that were fitted."""
    if in_order is None:
        return {}
    units = units_of(equations.squares, choice.weights)
    of = equations.equations(choice.weights, ridge=choice.ridge)
    if equations.dual:
        return {
            "samples": posterior_of_rows(of.rows, of.roots, of.kernel, of.ridge),
            "left_out": left_out_of_rows(model, frames, loss, rows=equations, of=of, units=units, among=in_order),
        }
    normal, _ = of
    factor = cholesky(normal.clone())
    if factor is None:
        return {"normal": normal}
    left_out = left_out_energies(model, in_order, loss, factor=factor, solution=solution, units=units)
    return {"normal": normal, "left_out": left_out}


class ChosenFit(NamedTuple):
    """Outcome of ``fit_by_choice`` and ``fit_with_weights``.

    Attributes
    ----------
    normal : Tensor [P, P] or None
        Normal matrix with its ridge; the weights of all species come before the constants. None without error bars, and
        where there are fewer labels than half the weights.
    samples : Tensor [P, K] or None
        Samples of the posterior in its place, where there are so few labels.
    left_out : Deviations or None
        Energies of structures, each left out in a block, for the calibration of error bars.
    change : Tensor [P] or None
        Further change of the weights by which the validation structures are fitted too, see ``add_change``.
    """

    choice: Choice
    normal: torch.Tensor | None = None
    left_out: Deviations | None = None
    change: torch.Tensor | None = None
    samples: torch.Tensor | None = None

    @property
    def factor(self) -> torch.Tensor | None:
        """X [P, K] with X X^T equal, or about equal, to the covariance of the weights; None without error bars."""
        return self.samples if self.normal is None else inverse_factor(self.normal, 0.0)


def add_change(model: Model, change: torch.Tensor) -> None:
    """Add changes [P] to the weights, then the constants, of a linear energy head.

    Raises
    ------
    Diverged
        For changes that are not finite.
    """
    _add(model, change, "check the labels. Nothing was saved")


def _add_rows(equations, model, frames, loss, fold=None):
    batches = Batches.for_model(model, frames, loss.labels).with_label(*loss.labels)
    for k in range(len(batches)):
        equations.add(checked_rows(model, batches, [k], loss), fold=fold)


def prefactors(loss: EnergyLoss) -> dict[str, tuple[float, float]]:
    """First and last prefactor of each label of a loss."""
    return {name: getattr(loss, name) for name in loss.labels}


def _sum(regression, model, frames, loss, arranged, batch_size, checkpoint, progress):
    """Add the rows of all frames to a regression; ``arranged`` turns rows by label into the arguments of ``add``."""
    identity = {
        "frames": frames.fingerprint(),
        "loss": f"{type(loss).__name__} {vars(loss)}",
        "model": digest_of(model),
        "batch_size": batch_size,
        "kind": type(regression).__name__,
    }
    batches = Batches.for_model(model, frames, loss.labels).with_label(*loss.labels)
    sum_rows(
        regression,
        len(batches),
        batch_size,
        lambda chosen: arranged(checked_rows(model, batches, chosen, loss)),
        checkpoint=checkpoint,
        identity=identity,
        progress=progress,
    )


def _fewer_of_large(frames, batch_size):
    """Number of structures in a batch: ``batch_size``, or less where the largest of them have more than ATOMS."""
    largest = max((len(frame.atoms) for frame in frames), default=1)
    return max(1, min(batch_size, ATOMS // largest))


def _n_weights(model):
    return sum(part.numel() for layer in model.heads["energy"].nets.last for part in layer.parameters())


def _n_matrices(held, loss, n_weights):
    """Matrices of the size of the weights: sums by label, one for a solution, and those of folds or one for error bars."""
    of_folds = 0.0
    for name in loss.labels if len(held) > 1 else ():
        for fold in held:
            share = sum(np.size(frame.labels[name]) for frame in fold if name in frame.labels) / n_weights
            of_folds += share if share <= FEW else 1
    return math.ceil(len(loss.labels) + 1 + max(of_folds, 1.0))


def _few_rows(frames, loss, n_weights, batch_size, n_matrices=2):
    """Whether the matrix of the labels is solved instead of the matrix of the weights.

    Raises ValueError where memory suffices for neither.
    """
    few, needed, what = _needs(frames, loss, n_weights, batch_size, n_matrices)
    check_memory(needed, what, REMEDY)
    return few


def _needs(frames, loss, n_weights, batch_size, n_matrices):
    """(whether the matrix of the labels is solved, numbers in memory, what these are for)"""
    rows, most = n_rows(frames, loss), largest_batch(frames, loss, batch_size)
    few = n_weights > MANY_WEIGHTS and rows < FEW_ROWS * n_weights
    if few:
        # rows, once more in one matrix, and those of folds; samples
        needed = (3 * rows + 3 * most + 2 * N_DIRECTIONS) * n_weights + 5 * rows**2
        return few, needed, f"the closed form of {rows} labels and {n_weights} weights"
    size = NUMBER * n_weights**2 / 1e9
    what = f"the closed form of {n_weights} weights, with {n_matrices} matrices of {size:.3g} GB,"
    return few, n_matrices * n_weights**2 + 3 * n_weights * most, what


def folds_in_memory(
    model: Model, seen: Frames, held: Sequence[Frames], loss: EnergyLoss, *, progress: bool | Log = True
) -> tuple[Frames, list[Frames]]:
    """Structures to fit and folds for ``fit_by_choice``, with as many of the folds as memory suffices for, and one at least.

    The structures of other folds are fitted from the start. Where a matrix of the size of the labels is solved, folds take
    no memory.
    """
    every, n_weights, n = join([seen, *held]), _n_weights(model), len(held)
    batch_size = _fewer_of_large(every, BATCH)
    while n > 1:
        few, needed, _ = _needs(every, loss, n_weights, batch_size, _n_matrices(held[:n], loss, n_weights))
        if few or memory_suffices(needed):
            break
        n -= 1
    n = -processes.largest(-n)  # the fewest of all processes, which must choose alike
    if n < len(held):
        Log.of(progress).tell(f"choosing with {n} of {len(held)} folds, for which the memory suffices")
    return join([seen, *held[n:]]), list(held[:n])


@torch.no_grad()
def _add(model, change, remedy):
    """Add the changes [P] of weights and constants to the last layers; Diverged where they are not finite."""
    if not bool(torch.isfinite(change).all()):
        raise Diverged(f"the closed form of the energy has no finite solution; {remedy}")
    last = model.heads["energy"].nets.last
    change = change.to(last[0].weight)
    weights, constants = change[: -len(last)].reshape(len(last), -1), change[-len(last) :]
    for layer, weight, constant in zip(last, weights, constants):
        layer.weight += weight
        layer.bias += constant
