"""Training of a Hamiltonian head by gradient descent on matrix elements and eigenvalues."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ase_mlelec import processes
from ase_mlelec.heads.hamiltonian.blocks import HamiltonianHead
from ase_mlelec.model import Model
from ase_mlelec.train.finite import Diverged, NotFinite
from ase_mlelec.train.hamiltonian.eigenvalue_response import level_errors
from ase_mlelec.train.hamiltonian.items import CATEGORIES, SHARP, Item, join, without_third_atoms
from ase_mlelec.train.log import Log
from ase_mlelec.train.loop import LARGEST_GRADIENT, Schedule, batch_of_step, run_loop

# Loss and errors


def category_errors(head: HamiltonianHead, items: Sequence[Item]) -> dict:
    """dict by category of the errors, predicted - true, eV, of all elements; category "levels" holds eigenvalues."""
    geometry, onsite, hopping = join(head, items)
    found: dict = {name: [] for name in CATEGORIES}
    blocks, groups = head.unshifted(geometry), geometry.groups()
    differences = {k: blocks.onsite[k] - truth for k, truth in onsite.items()}
    differences |= {key: blocks.hopping[key] - truth for key, truth in hopping.items()}
    for k in onsite:
        found["onsite"].append(differences[k].flatten())
    for key in hopping:
        near = geometry.r[groups[key]] < SHARP
        for name, mask in (("near", near), ("long", ~near)):
            found[f"{'inter' if key[0] else 'intra'}_{name}"].append(differences[key][mask].flatten())
    errors = {name: torch.cat(parts) for name, parts in found.items() if parts and sum(map(len, parts))}
    levels = level_errors(items, differences)
    return errors if levels is None else errors | {"levels": levels}


@torch.no_grad()
def category_scales(head: HamiltonianHead, items: Sequence[Item], batch_size: int = 8) -> dict:
    """dict by category of the root mean square errors, eV; the loss is in units of these errors before the fit.

    The errors of a new head are those of its linear parts alone.
    """
    totals: dict = {}
    for start in processes.mine(range(0, len(items), batch_size)):
        for name, error in category_errors(head, items[start : start + batch_size]).items():
            square, count = totals.get(name, (0.0, 0))
            totals[name] = [square + float(error.square().sum()), count + len(error)]
    totals = processes.summed(totals)
    return {name: max((square / count) ** 0.5, 1e-5) for name, (square, count) in totals.items()}


def fit_hamiltonian(
    model: Model,
    items: Sequence[Item],
    *,
    validation: Sequence[Item] = (),
    steps: int | None = 2000,
    batch_size: int = 4,
    learning_rate: tuple[float, float] = (3e-3, 3e-6),
    weights: dict[str, float] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    curve: str | Path | None = None,
    fingerprint: str | None = "",
    interval: int | None = None,
    progress: bool | Log = True,
    **options: Any,
) -> dict:
    """Fit the Hamiltonian head of ``model`` with Adam and a learning rate that falls exponentially.

    The loss is the sum over categories of weight x mean square error / mean square error before the fit, of the training
    structures or, for the loss that is watched, of the validation structures. Call
    standardize_hamiltonian first, or start from a fitted head. At the end the interface dipole is fitted to the
    remaining errors of the on-site blocks.

    Parameters
    ----------
    items, validation : lists of Item (see prepare)
    weights : dict of float by category
        Weights in the loss; "levels" is the weight of the eigenvalues. Default 1.
    checkpoint, curve : paths
        As in ase_mlelec.train.fit.
    options
        Further arguments of ase_mlelec.train.loop.run_loop: ``seconds``, ``patience``, ``keep``, ``identity``.

    Returns
    -------
    dict of float by category
        Root mean square errors, eV, on ``validation`` or else on the training data.

    Raises
    ------
    ValueError
        When a checkpoint belongs to another run.
    Diverged
        For a loss or gradient that is NaN or infinite.
    """
    head = model.heads["hamiltonian"]
    items, validation = (without_third_atoms(head, part) for part in (items, validation))
    problem = HamiltonianProblem(model, items, validation, weights or {}, batch_size, seed, fingerprint)
    run_loop(
        problem,
        steps=steps,
        schedule=Schedule(*learning_rate),
        interval=interval,
        checkpoint=checkpoint,
        curve=curve,
        progress=progress,
        **options,
    )
    fit_dipole(head, items)
    return {name: error for name, error in problem.errors().items() if name != "loss"}


class HamiltonianProblem:
    """Loss and errors of ``fit_hamiltonian``, as a Problem of the training loop (see ase_mlelec.train.loop)."""

    largest_gradient = LARGEST_GRADIENT

    def __init__(
        self,
        model: Model,
        items: Sequence[Item],
        validation: Sequence[Item],
        weights: dict[str, float],
        batch_size: int,
        seed: int,
        fingerprint: str | None,
    ):
        self.model, self.items, self.held, self.batch_size, self.seed = (
            model,
            items,
            validation or items,
            batch_size,
            seed,
        )
        self.head = model.heads["hamiltonian"]
        self.weights = dict.fromkeys((*CATEGORIES, "levels"), 1.0) | weights
        self.scales = category_scales(self.head, items)
        # few structures are fitted closely by the linear parts, and in units of their small errors the validation loss would
        # be that of a single category, whatever the others do
        self.held_scales = category_scales(self.head, self.held) if len(validation) else self.scales
        self.parameters = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        self.identity = {"seed": seed, "batch_size": batch_size, "weights": str(self.weights), "frames": fingerprint}
        self.watched = "loss" if len(validation) else ""
        self.validation_cost = len(self.held) / 3 / batch_size
        self.squares: dict = {}
        self.title = f"hamiltonian of {', '.join(model.species)}"
        numbers = sum(parameter.numel() for parameter in self.parameters)
        self.about = {
            "frames": f"{len(items)} to train on, {len(validation) or 'none'} watched, {batch_size} in a step",
            "parameters": f"{numbers} of nets, beside the terms in closed form",
        }

    def batches(self, step: int) -> Iterator:
        yield batch_of_step(len(self.items), self.batch_size, self.seed, step)

    @property
    def shared(self) -> bool:
        """Whether each of several processes takes a part of a batch."""
        return processes.world() > 1

    def loss(self, batch: Sequence[int], ratio: float) -> Iterator:
        own = [self.items[k] for k in processes.mine(batch)]
        errors = category_errors(self.head, own) if own else {}
        counts = processes.summed({name: len(error) for name, error in errors.items()})
        squares = {name: error.square().sum() / counts[name] for name, error in errors.items()}
        if squares:
            yield self._summed(squares, self.scales)
        found = processes.summed({name: float(square.detach()) for name, square in squares.items()})
        self.squares = {f"training_{name}": found[name] for name in (*CATEGORIES, "levels") if name in found}

    def _summed(self, squares, scales):
        return sum(self.weights[name] * square / scales[name] ** 2 for name, square in squares.items())

    def errors(self) -> dict[str, float]:
        found = category_scales(self.head, self.held)
        return found | {
            "loss": float(self._summed({name: error**2 for name, error in found.items()}, self.held_scales))
        }

    def explained(
        self, failure: NotFinite, batch: Sequence[int] | None, step: int, ratio: float, rate: float
    ) -> Diverged:
        items = self.held if batch is None else self.items
        return _explained(failure, self.head, items, range(len(items)) if batch is None else batch, step, rate)


@torch.no_grad()
def _explained(problem, head, items, chosen, step, rate):
    """Diverged error that names the frames and the categories of elements on which a step failed."""
    found = {}
    for k in chosen:
        errors = category_errors(head, [items[k]])
        found[k] = [name for name, error in errors.items() if not bool(torch.isfinite(error).all())]
    failing = {k: names for k, names in found.items() if names} or found
    named = "; ".join(
        f"{int(k)} ({items[k].name or 'unnamed'}){': ' * bool(names)}{', '.join(names)}"
        for k, names in list(failing.items())[:8]
    )
    return Diverged(
        f"training stopped at step {step}: the {problem.what.split()[0]} is NaN or infinite, with the frames "
        f"{named}; the learning rate, {rate:.3g}, is likely too large: lower it, or check these "
        "Hamiltonians; the last checkpoint is as it was"
    )


@torch.no_grad()
def fit_dipole(head: HamiltonianHead, items: Sequence[Item]) -> None:
    """Fit the coefficients of the interface dipole to the mean on-site errors of the layers, by least squares.

    Only structures with different layers take part; without any, the coefficients do not change.
    """
    rows, steps = [], []
    for item in items:
        features = head.interface_features(item.layers)
        if not bool((features.abs() > 1e-6).any()):
            continue
        blocks = head.unshifted(item.geometry.pairs(slice(0, 0)))
        rest = torch.zeros(item.geometry.n_layers, dtype=torch.float64)
        count = torch.zeros_like(rest)
        for k, truth in item.onsite.items():
            atoms = blocks.atoms(k)
            difference = (truth - blocks.onsite[k]).diagonal(dim1=1, dim2=2).mean(dim=1)
            rest.index_add_(0, item.geometry.layer[atoms], difference.double())
            count.index_add_(0, item.geometry.layer[atoms], torch.ones_like(difference).double())
        level = rest / count
        rows.append(features)
        steps.append(level[1:] - level[:-1])
    if rows:
        solution = torch.linalg.lstsq(torch.cat(rows), torch.cat(steps)[:, None], driver="gelsd", rcond=1e-6).solution
        head.interface_dipole.copy_(solution[:, 0])
