"""Choice of the weights of labels and of the ridge of a closed form, by the errors on held-out structures.

The sums A^T A of each label are kept apart, and so are those of folds of structures. A trial with other weights, or without
the structures of a fold, then costs the solution of one linear equation, and no second pass over the data.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ase_mlelec.matrices import cholesky
from ase_mlelec.train.linear import TINY, RidgeRegression

STEPS = ((2.0, 1.0), (1.0, 0.5), (0.5, 0.25))  # decades of the ridge and of the weight of energies, in each round
RIDGES = (-13.0, -1.0)  # decades, ends of the search
LEADING = ("energy", "forces")
TOLERANCE = 0.03  # of the sum of the logarithms of the errors of energies and forces, for smaller errors of stress
LEAST = 1e-8  # share of the squares of energies or forces in those of the other, eV and Å, below which one is all alike
EXACT = 1e-7  # eV and eV/Å; below it errors are rounding, which no choice is made by
LARGEST_ENERGY = 100.0  # weight of energies; beyond, forces are given up for the noise of a few energies
SAME = {"energy": 0.02, "ridge": 0.01}  # differences of that sum that mean nothing; energies are few
SMALL = 0.1  # of the median error of all folds
FEW = 0.05  # rows of a label in a fold for each weight, up to which they are kept as they are
STRESS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # weights of stress that are tried
LITTLE = (1e-4, 1e-5)  # the same, in turn, where all of these cost too much


@dataclass(frozen=True)
class Choice:
    """Weights and ridge of a closed form.

    Attributes
    ----------
    ridge : float
        In units of the mean diagonal element of A^T A.
    weights : dict of float
        Weight of each label, in units of the inverse sum of its squared residuals: labels with weights of 1 count alike.
    errors : dict of float
        Mean absolute errors on held-out structures by label; geometric means over folds.
    """

    ridge: float
    weights: dict[str, float]
    errors: dict[str, float]

    @property
    def score(self) -> float:
        """Sum of the logarithms of the errors of energies and forces, or of stress where there is nothing else."""
        return self.score_with(1.0)

    def score_with(self, of_energies: float) -> float:
        """The same sum with a factor of energies, where there are forces as well."""
        leading = [name for name in LEADING if name in self.errors] or list(self.errors)
        factors = {"energy": of_energies} if len(leading) == len(LEADING) else {}
        logarithms = [factors.get(name, 1.0) * math.log(max(self.errors[name], EXACT)) for name in leading]
        return sum(logarithms) if all(map(math.isfinite, logarithms)) else math.inf


class Equations(Protocol):
    """Sums over the rows of a least-squares problem, by label."""

    dual: bool
    squares: dict[str, float]

    def solve(self, weights: Mapping[str, float], *, ridge: float, without: int | None = None) -> Tensor:
        """Solution [P] with a weight for each label, perhaps ``without`` the rows of a fold."""


class SumsByLabel:
    """Sums A^T A and A^T b of the rows of each label.

    Attributes
    ----------
    squares : dict of float
        Sum of the squares b^T b of each label.
    """

    dual = False

    def __init__(self) -> None:
        self.parts: dict[str, RidgeRegression] = {}
        self.folds: dict[int, dict[str, FoldSums]] = {}
        self.squares: dict[str, float] = {}

    def add(self, rows: Mapping[str, tuple[Tensor, Tensor]], *, fold: int | None = None) -> None:
        """Add rows [n, P] and targets [n] by label; those of a ``fold`` can be left out of a solution."""
        for name, (matrix, targets) in rows.items():
            self.parts.setdefault(name, RidgeRegression()).add(matrix, targets)
            if fold is not None:
                self.folds.setdefault(fold, {}).setdefault(name, FoldSums()).add(matrix, targets)
            self.squares[name] = self.squares.get(name, 0.0) + float(targets.square().sum())

    def forget_folds(self) -> None:
        """Free their memory; no rows can be left out any more."""
        self.folds = {}

    def state(self) -> dict[str, Any]:
        return {"squares": self.squares, "sums": {name: part.state() for name, part in self.parts.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        self.squares = state["squares"]
        for name, sums in state["sums"].items():
            self.parts.setdefault(name, RidgeRegression()).load(sums)

    def solve(self, weights: Mapping[str, float], *, ridge: float, without: int | None = None) -> Tensor:
        """Solution [P]; it is not finite where rounding makes the equations indefinite."""
        normal, right = self.equations(weights, ridge=ridge, without=without)
        factor = cholesky(normal)
        if factor is None:
            return torch.full_like(right, math.nan)
        return torch.cholesky_solve(right[:, None], factor)[:, 0]

    def equations(
        self, weights: Mapping[str, float], *, ridge: float, without: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normal equations: matrix [P, P] with its ridge, and right-hand side [P]; perhaps ``without`` a fold."""
        normal = right = torch.zeros(())
        fold = {} if without is None else self.folds.get(without, {})
        units = units_of(self.squares, weights)
        for name, weight in units.items():
            part = self.parts[name]
            if not normal.ndim:
                normal, right = weight * part.normal, weight * part.right
            else:
                normal.add_(part.normal, alpha=weight)
                right.add_(part.right, alpha=weight)
        for name in fold.keys() & units.keys():
            fold[name].subtract(normal, right, units[name])
        normal.diagonal().add_(ridge * float(normal.diagonal().mean()) + TINY)
        return normal, right


class FoldSums:
    """Sums over the rows of a label in a fold, or the rows themselves while they are few: these take less memory."""

    def __init__(self) -> None:
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._sums: RidgeRegression | None = None

    def add(self, matrix: Tensor, targets: Tensor) -> None:
        """Add rows [n, P] and targets [n]."""
        if self._sums is not None:
            self._sums.add(matrix, targets)
            return
        self._rows.append((matrix, targets))
        if sum(len(each) for _, each in self._rows) > FEW * matrix.shape[1]:
            self._sums = RidgeRegression()
            for pair in self._rows:
                self._sums.add(*pair)
            self._rows = []

    def subtract(self, normal: Tensor, right: Tensor, weight: float) -> None:
        """Take ``weight`` times the sums off A^T A [P, P] and A^T b [P], in place."""
        if self._sums is not None:
            normal.add_(self._sums.normal, alpha=-weight)
            right.add_(self._sums.right, alpha=-weight)
        for matrix, targets in self._rows:
            normal.addmm_(matrix.T, matrix, alpha=-weight)
            right.addmv_(matrix.T, targets, alpha=-weight)


class RowsByLabel:
    """Rows of each label, for fewer rows than columns: equations as many as rows are solved."""

    dual = True

    def __init__(self) -> None:
        self._rows: list[tuple[str, int | None, tuple[Tensor, Tensor]]] = []  # of a label and a fold
        self._numbers: list[int] = []  # of the calls of ``add``
        self.squares: dict[str, float] = {}
        self._joined: Any = None

    def add(self, rows: Mapping[str, tuple[Tensor, Tensor]], *, fold: int | None = None) -> None:
        """Add rows [n, P] and targets [n] by label; those of a ``fold`` can be left out of a solution."""
        number = self._numbers[-1] + 1 if self._numbers else 0
        for name, pair in rows.items():
            self._rows.append((name, fold, pair))
            self._numbers.append(number)
            self._joined = None
            self.squares[name] = self.squares.get(name, 0.0) + float(pair[1].square().sum())

    def forget_folds(self) -> None:
        """They take no memory of their own."""

    def owners(self) -> tuple[Tensor, Tensor]:
        """For each row, the number of the call of ``add`` that it came with, and whether it is one of an energy."""
        counts = torch.tensor([len(pair[1]) for *_, pair in self._rows])
        columns = torch.tensor(self._numbers), torch.tensor([name == "energy" for name, *_ in self._rows])
        return columns[0].repeat_interleave(counts), columns[1].repeat_interleave(counts)

    def solve(self, weights: Mapping[str, float], *, ridge: float, without: int | None = None) -> Tensor:
        """Solution [P]; it is not finite where rounding makes the equations indefinite."""
        of = self.equations(weights, ridge=ridge, without=without)
        if of.factor is None:
            return torch.full_like(of.rows[0], math.nan)
        return of.rows.T @ (of.roots * torch.cholesky_solve(of.targets[:, None], of.factor)[:, 0])

    def equations(self, weights: Mapping[str, float], *, ridge: float, without: int | None = None) -> "DualEquations":
        """Equations as many as rows, perhaps ``without`` those of a fold."""
        if self._joined is None:
            rows, targets = (torch.cat(column) for column in zip(*(pair for *_, pair in self._rows), strict=True))
            self._joined = torch.tensor([len(pair[1]) for *_, pair in self._rows]), rows, targets, rows @ rows.T
        counts, rows, targets, kernel = self._joined
        units = units_of(self.squares, weights)
        # a row without a weight is as good as none
        roots = [
            0.0 if without is not None and fold == without else units.get(name, 0.0) ** 0.5
            for name, fold, _ in self._rows
        ]
        root = torch.tensor(roots).repeat_interleave(counts).to(targets)
        kernel = root[:, None] * kernel * root
        # the mean over all columns, as with the other form of the same equations
        held = ridge * float(kernel.diagonal().sum()) / rows.shape[1] + TINY
        factor = cholesky(kernel + held * torch.eye(len(kernel)).to(kernel))
        return DualEquations(rows, root, root * targets, kernel, factor, held)


class DualEquations(NamedTuple):
    """Least squares with more columns than rows A = diag(roots) rows: (A A^T + ridge) y = targets, solution A^T y.

    Attributes
    ----------
    rows : Tensor [n, P]
    roots : Tensor [n]
        Square roots of the weights of the rows.
    targets : Tensor [n]
        Times the roots.
    kernel : Tensor [n, n]
        A A^T.
    factor : Tensor [n, n] or None
        Lower Cholesky factor of A A^T + ridge; None where rounding makes it indefinite.
    ridge : float
    """

    rows: Tensor
    roots: Tensor
    targets: Tensor
    kernel: Tensor
    factor: Tensor | None
    ridge: float


def units_of(squares: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Factors of the sums of each label with a weight above zero.

    Energies may all be the same up to rounding, as those of displacements that are alike by symmetry; their weight would
    then be endless.
    """
    least = max(TINY, LEAST * max((squares[name] for name in LEADING if name in squares), default=0.0))
    return {
        name: weight / max(squares[name], least) for name, weight in weights.items() if weight > 0 and name in squares
    }


def choose(
    equations: Equations, folds: Sequence[Mapping[str, tuple[Tensor, Tensor]]], *, ridge: float | None = None
) -> Choice:
    """Choose ridge and weights by the mean absolute errors on held-out structures.

    The sum of the logarithms of the errors of energies and forces, a mean over folds, is minimized along one variable after
    the other. Stress gets the weight with which its own error is smallest, as long as this sum is no more than TOLERANCE
    above the smallest with any of its weights.

    The errors of a fold are those of the solution without its rows. Few structures, such as a single fold of twenty, can
    have small errors by chance with weights that are wrong for others.

    Parameters
    ----------
    equations : Equations
        Rows that were added with the number of a fold are left out for its errors. Rows of a fold that were not added need
        not be.
    folds : sequence of dict of (rows [n, P], targets [n])
        Held-out rows of each fold by label, without weights.
    ridge : float, optional
        A ridge that is given, and not chosen.
    """

    def errors(choice):
        found: dict[str, list[float]] = {}
        for k, held in enumerate(folds):
            solution = equations.solve(choice.weights, ridge=choice.ridge, without=k)
            for name, (rows, targets) in held.items():
                found.setdefault(name, []).append(float((rows @ solution - targets).abs().mean()))
        return replace(choice, errors={name: _geometric_mean(each) for name, each in found.items()})

    leading = [name for name in LEADING if name in equations.squares]
    weights = dict.fromkeys(leading or equations.squares, 1.0)
    best = errors(Choice(1e-7 if ridge is None else ridge, weights, {}))
    for steps in STEPS:
        best = _improved(best, errors, steps, ridge is None, len(leading) == len(LEADING))
    best = _plainest(best, errors, ridge is None, len(leading) == len(LEADING))
    if leading and "virial" in equations.squares:
        best = _with_stress(best, errors)
    return best


def _geometric_mean(errors):
    """Every fold counts alike: in the mean, one of structures unlike all others would decide alone.

    A fold with an error below SMALL times the median has no say: forces of its structures may vanish by symmetry. With the
    mean in place of the median, one fold with errors of 1000 eV would silence all others.
    """
    if not all(map(math.isfinite, errors)):
        return math.inf
    least = max(SMALL * statistics.median(errors), EXACT)
    return math.exp(sum(math.log(max(error, least)) for error in errors) / len(errors))


def solved(equations: Equations, choice: Choice) -> tuple[Tensor, Choice]:
    """Solution [P] with a Choice, whose ridge is raised as far as rounding makes the equations indefinite.

    A ridge that was chosen before rows were added can be too small after. The solution is not finite where the largest
    of RIDGES does not help.
    """
    solution = equations.solve(choice.weights, ridge=choice.ridge)
    while not bool(torch.isfinite(solution).all()) and choice.ridge < 10 ** RIDGES[1]:
        choice = replace(choice, ridge=10 * choice.ridge)
        solution = equations.solve(choice.weights, ridge=choice.ridge)
    return solution, choice


def _plainest(best, errors, free_ridge, both):
    """Of the choices that are about as good: with a smaller weight of energies, which are few, and a larger ridge."""
    lowest = best.score
    for variable, step, free in (("energy", -0.25, both), ("ridge", 0.5, free_ridge)):
        for trial in _moved(best, variable, step) if free else ():
            trial = errors(trial)
            if trial.score > lowest + SAME[variable] or (variable == "energy" and trial.weights["energy"] < 1):
                break
            best = trial
    return best


def _improved(best, errors, steps, free_ridge, both):
    """The best Choice along the ridge, which is scanned at first, and along the weight of energies, by steps in decades."""
    for variable, step in zip(("ridge", "energy"), steps):
        if not {"ridge": free_ridge, "energy": both}[variable]:
            continue
        if variable == "ridge" and step == STEPS[0][0]:
            # the errors of few structures have minima along the ridge, at the first of which a walk would stop
            trials = (errors(trial) for sign in (1, -1) for trial in _moved(best, variable, sign * step))
            best = min((best, *trials), key=lambda trial: trial.score)
            continue
        for sign in (1, -1):
            moved = False
            for trial in _moved(best, variable, sign * step):
                trial = errors(trial)
                if not trial.score < best.score - 1e-4:
                    break
                best, moved = trial, True
            if moved:
                break
    return best


def _moved(choice: Choice, variable: str, step: float) -> Iterator[Choice]:
    """Iterate over choices with more and more steps, in decades, of one variable."""
    for k in range(1, 10):
        factor = 10 ** (k * step)
        if variable == "energy":
            energy = choice.weights["energy"] * factor
            if energy <= LARGEST_ENERGY:
                yield replace(choice, weights=choice.weights | {"energy": energy})
        elif RIDGES[0] <= math.log10(choice.ridge * factor) <= RIDGES[1]:
            yield replace(choice, ridge=choice.ridge * factor)


def _with_stress(best: Choice, errors: Callable[[Choice], Choice]) -> Choice:
    """The Choice with the smallest error of stress of those whose other errors are about as small as can be."""

    def with_weight(weight):
        return errors(replace(best, weights=best.weights | {"virial": weight}))

    trials = [best, *map(with_weight, STRESS)]
    limit = min(trial.score for trial in trials) + TOLERANCE
    allowed = [trial for trial in trials if trial.score <= limit]
    if allowed == [best]:
        allowed += [trial for trial in map(with_weight, LITTLE) if trial.score <= limit][:1]
    return min(allowed, key=lambda trial: trial.errors.get("virial", 0.0))
