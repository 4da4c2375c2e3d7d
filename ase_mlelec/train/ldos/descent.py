"""Gradient descent on the LDOS of grid points, and ridge regression of the last layer after it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_mlelec import processes
from ase_mlelec.data.grid_points import GridData, GridItem
from ase_mlelec.heads import LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.train.finite import Diverged, NotFinite, closed_form
from ase_mlelec.train.linear import RIDGE, RidgeRegression
from ase_mlelec.train.log import Log
from ase_mlelec.train.loop import Schedule, run_loop


def not_finite(data: GridData, places: Iterable[int], what: str) -> str:
    """Message that the ``what`` of the snapshots at these places is NaN or infinite, with their names."""
    names = ", ".join(f"{k} ({data.snapshots[k].name or 'unnamed'})" for k in places)
    return (
        f"{data.snapshots.path}: the {what} of snapshot {names} is NaN or infinite; the learning rate "
        "is likely too large: lower it, or check the labels; the last checkpoint is as it was"
    )


@torch.no_grad()
def refit_last_layer(head: LDOSHead, data: GridData, dos_weight: float, hold: float = 0.0) -> None:
    r"""Replace the last layer by the least-squares solution for the pointwise LDOS and the DOS of every snapshot:

    .. math::

        \sum_\text{snapshots} \text{share} \, \Bigl( \mathrm{mean}_r |W h(r) - D(r)|^2
        + \text{dos\_weight} \, |\mathrm{mean}_r W h(r) - \mathrm{DOS}/\text{volume}|^2
        + \text{hold} \; \mathrm{mean}_{r,i} h_i(r)^2 \, |W - W_0|^2 \Bigr)

    W_0 is the last layer that gradient descent found, and the shares give every point with an LDOS the same weight.
    ``hold`` matters for few snapshots: many combinations of hidden units hardly vary on their points but vary on the
    points of other structures, and W should not change for these combinations.
    """
    with closed_form("the refit of the last layer", "check the LDOS of the snapshots, or train longer before it"):
        solution = torch.linalg.solve(*normal_equations(head, data, dos_weight, hold)) / head.scale
    if not bool(torch.isfinite(solution).all()):
        raise Diverged(not_finite(data, range(len(data)), "refit of the last layer"))
    head.last.weight.copy_(solution[:-1].T)
    head.last.bias.copy_(solution[-1])


@torch.no_grad()
def normal_equations(head: LDOSHead, data: GridData, dos_weight: float, hold: float = 0.0) -> tuple:
    """(N [H + 1, H + 1], R [H + 1, S]), float64: scale W of refit_last_layer is N^-1 R."""
    regression, n_points, pull = RidgeRegression(), 0, 0.0
    for item in (data[k] for k in processes.mine(range(len(data)))):
        layers = torch.nn.functional.pad(head.activations(item.features).double(), (0, 1), value=1.0)
        h, root = layers[item.points], (dos_weight * len(item.points)) ** 0.5
        regression.add(h, item.ldos)
        regression.add(root * layers.mean(dim=0, keepdim=True), root * item.dos.double()[None] / item.volume)
        pull, n_points = pull + hold * float((h**2).mean()) * len(h), n_points + len(h)
    if processes.world() > 1:
        regression.load(processes.summed(regression.state()))
        n_points, pull = processes.summed([n_points, pull])
    start = head.scale * torch.cat([head.last.weight.T, head.last.bias[None]]).double()
    share = len(data) / n_points
    return tuple(share * part for part in regression.equations(ridge=RIDGE + pull / regression.size, start=start))


@dataclass(frozen=True)
class LDOSLoss:
    """Loss of an LDOS: mean squared errors of the LDOS, the density, the DOS per atom and the band energy per atom.

    The LDOS is in units of the scale of the head, the density in units of its mean, the band energy in eV.

    References
    ----------
    Ellis et al. 2021, section II C; the integrated terms as in its outlook.
    """

    ldos: float = 1.0
    density: float = 0.0
    dos: float = 0.0
    band_energy: float = 0.0

    def __call__(self, head, item) -> tuple:
        error = head.spectrum(item.features[item.points]) - item.ldos
        errors = {
            "ldos": ((error / head.scale) ** 2).mean(),
            "density_relative": ((error @ item.number / item.n_electrons * item.volume) ** 2).mean(),
        }
        loss = self.ldos * errors["ldos"] + self.density * errors["density_relative"]
        if self.dos or self.band_energy or not torch.is_grad_enabled():
            # the LDOS is linear in the last hidden layer, and so is its mean over the grid
            mean = head.scale * head.last(head.activations(item.features).mean(dim=0))
            per_atom = (item.volume * mean - item.dos) / item.n_atoms
            errors["dos_per_atom_eV"] = (per_atom**2).mean()
            errors["band_energy_eV_per_atom"] = (per_atom @ item.energy) ** 2
            loss = loss + self.dos * errors["dos_per_atom_eV"] + self.band_energy * errors["band_energy_eV_per_atom"]
        return loss, errors


def fit_ldos(
    model: Model,
    data: GridData,
    loss: LDOSLoss = LDOSLoss(),
    *,
    validation: GridData | None = None,
    epochs: int | None = 60,
    batch_size: int = 8,
    batch_points: int = 0,
    learning_rate: tuple[float, float] = (2e-3, 1e-5),
    schedule: str = "plateau",
    patience: int = 4,
    dos_weight: float = 30.0,
    hold: float = 0.0,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    curve: str | Path | None = None,
    progress: bool | Log = True,
    **options: Any,
) -> dict:
    """Fit the LDOS head of ``model`` with Adam and a falling learning rate, then refit its last layer.

    Parameters
    ----------
    model : Model with a head "ldos"
        Trained in place.
    data, validation : GridData
    batch_size
        Snapshots per step.
    batch_points
        Random grid points of each snapshot in a step; an epoch covers all points with an LDOS. 0: all points.
    learning_rate : (first, last)
    schedule : str
        "plateau": the learning rate is halved on plateaus, and training ends when it falls below the last learning rate,
        or after ``epochs``; "cosine": it falls to the last learning rate as half a cosine, over all ``epochs``.
    patience
        Epochs without a new minimum of the loss on ``validation`` (default: on the training data) before the plateau
        schedule halves the learning rate.
    dos_weight, hold
        Weights of the refit, see refit_last_layer.
    checkpoint, curve : paths
        As in ase_mlelec.train.fit.
    options
        Further arguments of ase_mlelec.train.loop.run_loop: ``seconds``, ``keep``, ``identity``.

    Returns
    -------
    dict of float
        Root mean square errors on ``validation`` or else on the training data.

    Raises
    ------
    ValueError
        When a checkpoint belongs to another run.
    Diverged
        For a loss or gradient that is NaN or infinite.

    References
    ----------
    Ellis et al. 2021, section II C.
    """
    problem = LDOSProblem(model, data, loss, validation, schedule == "plateau", batch_size, batch_points, seed)
    run_loop(
        problem,
        steps=epochs,
        schedule=Schedule(*learning_rate, kind=schedule, patience=patience),
        checkpoint=checkpoint,
        curve=curve,
        progress=progress,
        unit="epochs",
        **options,
    )
    refit_last_layer(problem.head, data, dos_weight, hold)
    return mean_errors(problem.head, problem.held, loss)[1]


class LDOSProblem:
    """Loss and errors of ``fit_ldos``, as a Problem of the training loop (see ase_mlelec.train.loop) with epochs as steps.

    A batch is a list of (place of the snapshot, number of its points that take part, GridItem with these points).  Of
    processes that work together (see ase_mlelec.processes) each reads some of the snapshots; the others are None.
    """

    largest_gradient = math.inf

    def __init__(
        self,
        model: Model,
        data: GridData,
        loss: LDOSLoss,
        validation: GridData | None,
        watch: bool,
        batch_size: int,
        batch_points: int,
        seed: int,
    ):
        self.model, self.head, self.data, self.of_item = model, model.heads["ldos"], data, loss
        self.held = validation if validation is not None and len(validation) else data
        self.n_points = [data.snapshots.n_points(k) for k in range(len(data))]
        self.watched = "loss" if watch else ""
        self.batch_size, self.batch_points, self.seed = batch_size, batch_points, seed
        self.parameters = list(self.head.parameters())
        self.identity = {
            "seed": seed,
            "batch_size": batch_size,
            "batch_points": batch_points,
            "loss": f"{type(loss).__name__} {vars(loss)}",
            "snapshots": data.snapshots.fingerprint(),
        }
        self.squares: dict = {}
        self.title = f"LDOS of {', '.join(model.species)}"
        watched = len(self.held) if self.held is not data else "none"
        self.about = {
            "snapshots": f"{len(data)} to train on, {watched} watched, {batch_size} in a step",
            "parameters": str(sum(parameter.numel() for parameter in self.parameters)),
        }

    def batches(self, step: int) -> Iterator:
        rng = np.random.default_rng([self.seed, step])
        order = rng.permutation(len(self.data))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size].tolist()
            own = set(processes.mine(places))
            chosen = [self._parts(k, rng, k in own) for k in places]
            for parts in zip_longest(*chosen):
                yield [(k, *part) for k, part in zip(places, parts) if part is not None]

    def _parts(self, k, rng, own):
        """(number of points, snapshot with the LDOS of these points, None without ``own``) of random parts of a snapshot."""
        item = self.data[k] if own else None
        if not self.batch_points:
            return [(self.n_points[k], item)]
        shares = torch.from_numpy(rng.permutation(self.n_points[k])).split(self.batch_points)
        return [(len(s), item and replace(item, points=item.points[s], ldos=item.ldos[s])) for s in shares]

    @property
    def shared(self) -> bool:
        """Whether each of several processes takes a part of a batch."""
        return processes.world() > 1

    def loss(self, batch: Sequence[tuple[int, int, GridItem | None]], ratio: float) -> Iterator:
        whole = sum(n_points for _, n_points, _ in batch)
        found: dict = {}
        for k, n_points, part in batch:
            if part is None:
                continue
            value, squares = self.of_item(self.head, part)
            if not self.shared and not bool(torch.isfinite(value)):
                raise NotFinite("loss", [k])
            share = n_points / whole  # every point counts the same
            for name, square in squares.items():
                name = f"training_{name}"
                found[name] = found.get(name, 0.0) + share * float(square.detach())
            yield value * share
        self.squares = processes.summed(found)

    def errors(self) -> dict:
        value, errors = mean_errors(self.head, self.held, self.of_item)
        return {"loss": value, **errors}

    def explained(
        self,
        failure: NotFinite,
        batch: Sequence[tuple[int, int, GridItem | None]] | None,
        step: int,
        ratio: float,
        rate: float,
    ) -> Diverged:
        data = self.held if batch is None else self.data
        places = failure.places or (range(len(data)) if batch is None else [k for k, *_ in batch])
        start = f"training stopped in epoch {step}, learning rate {rate:.3g}"
        return Diverged(f"{start}: {not_finite(data, places, failure.what)}")


@torch.no_grad()
def mean_errors(head: LDOSHead, data: GridData, loss: LDOSLoss) -> tuple:
    """(mean loss, dict of root mean square errors) over all snapshots."""
    total = 0.0
    squares: dict = {}
    for k in processes.mine(range(len(data))):
        value, errors = loss(head, data[k])
        total += float(value)
        for name, square in errors.items():
            squares[name] = squares.get(name, 0.0) + float(square)
    total, squares = processes.summed(total), processes.summed(squares)
    return total / len(data), {name: (square / len(data)) ** 0.5 for name, square in squares.items()}
