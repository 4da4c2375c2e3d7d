"""Ridge regression whose ridge is chosen by cross-validation over blocks of structures, from one pass over the data.

Neighboring structures of a trajectory are alike, and errors of structures that were left out one by one would be too
small. Structures are therefore left out in blocks. The sums A^T A and A^T B of every block suffice: the sums without a
block are the total less its own, and the squared errors of the block follow from its sums as well.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.train.linear import RidgeRegression

MOST_BLOCKS = 6  # each block costs one solution for every ridge that is tried
RIDGES = 10.0 ** np.arange(-9.0, 2.1, 2)  # relative to the mean diagonal element, as in RidgeRegression
STEPS = (10.0, 10**0.5)  # of the search around the best of RIDGES
SAME = 1.01  # of ridges with errors within one percent of the smallest, the largest is taken: it extrapolates better
WITHOUT_BLOCKS = 1e-2  # ridge for a single structure, which leaves nothing to compare with


def blocks_of(n: int) -> NDArray:
    """Number of the block [n] of every structure: at most MOST_BLOCKS blocks of consecutive structures."""
    return np.arange(n) * min(n, MOST_BLOCKS) // n


class BlockSums:
    """Sums over the rows A, B of one kind of labels, by block: A^T A [P, P], A^T B [P, S], and squares of B.

    Parameters
    ----------
    n_blocks : int
    """

    def __init__(self, n_blocks: int):
        self.parts = [RidgeRegression() for _ in range(n_blocks)]
        self.squares, self.counts = [0.0] * n_blocks, [0] * n_blocks

    def add(self, block: int, rows: Tensor, targets: Tensor) -> None:
        """Add rows [n, P] and targets [n, S] of a block, both multiplied by the roots of configuration weights."""
        if len(rows):
            self.parts[block].add(rows, targets)
            self.squares[block] += float(targets.double().square().sum())
            self.counts[block] += targets.numel()

    def state(self) -> dict[str, Any]:
        """All sums, as dicts and lists of numbers and tensors."""
        return {"parts": [part.state() for part in self.parts], "squares": self.squares, "counts": self.counts}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the sums of a state."""
        for part, sums in zip(self.parts, state["parts"]):
            part.load(sums)
        self.squares, self.counts = list(state["squares"]), list(state["counts"])

    def joined(self, other: Self) -> Self:
        """The blocks of both."""
        found = type(self)(0)
        found.parts, found.squares = self.parts + other.parts, self.squares + other.squares
        found.counts = self.counts + other.counts
        return found

    @property
    def mean_square(self) -> float:
        """Mean square of the targets."""
        return sum(self.squares) / sum(self.counts)

    @property
    def total(self) -> tuple[Tensor, Tensor]:
        """Sums over all blocks, (A^T A, A^T B)."""
        having = [part for part in self.parts if len(part.normal)]
        normal, right = having[0].normal.clone(), having[0].right.clone()
        for part in having[1:]:  # in place: all blocks at once would take as much memory again
            normal += part.normal
            right += part.right
        return normal, right

    def error(self, block: int, solution: Tensor) -> float:
        """Sum of squared errors ``|A X - B|^2`` of a block."""
        part = self.parts[block]
        if not len(part.normal):
            return 0.0
        explained = (solution * (part.normal @ solution - 2 * part.right)).sum()
        return max(self.squares[block] + float(explained), 0.0)


@dataclass(frozen=True)
class Choice:
    """Ridge and weights that were chosen, and the root mean square errors in cross-validation.

    Attributes
    ----------
    ridge : float
        Relative to the mean diagonal element of the normal matrix.
    weights : tuple of float
        Weight of the mean square of each kind of labels.
    errors : tuple of float
        Root mean square of each kind of labels; empty for a single block.
    """

    ridge: float
    weights: tuple[float, ...]
    errors: tuple[float, ...]


class BlockRidge:
    """Choice of the ridge, and of the weights of kinds of labels, by leaving out one block after the other.

    Parameters
    ----------
    kinds : sequence of BlockSums
        Sums of each kind of labels, in the same columns.
    """

    def __init__(self, kinds: Sequence[BlockSums]):
        self.kinds = list(kinds)
        self.counts = [sum(kind.counts) for kind in self.kinds]
        self.sums = [kind.total for kind in self.kinds]
        n_blocks = len(self.kinds[0].parts)
        self.blocks = [b for b in range(n_blocks) if any(kind.counts[b] for kind in self.kinds)]

    def errors(self, ridge: float, weights: Sequence[float]) -> tuple[float, ...]:
        """Root mean square error of each kind of labels in the blocks that were left out.

        Parameters
        ----------
        ridge : float
            Relative to the mean diagonal element of the normal matrix.
        weights : sequence of float
            Weight of the mean square of each kind.
        """
        squares = self._squared_errors(ridge, weights)
        return tuple((sum(own) / count) ** 0.5 for own, count in zip(squares, self.counts))

    def typical_errors(self, ridge: float, weights: Sequence[float]) -> tuple[float, ...]:
        """Geometric mean over the blocks of the root mean square errors of each kind, as in ``errors``.

        Every block counts alike: in the mean square, one block of structures unlike all others, such as the only
        larger cells, would decide alone. A block whose mean square is below a hundredth of that of all has no say.
        """
        found = []
        for kind, own, count in zip(self.kinds, self._squared_errors(ridge, weights), self.counts):
            least = 0.01 * sum(own) / count
            means = [value / kind.counts[b] for b, value in zip(self.blocks, own) if kind.counts[b]]
            found.append(geometric_mean([math.sqrt(max(mean, least)) for mean in means]))
        return tuple(found)

    def _squared_errors(self, ridge, weights):
        """Sums of squared errors of each kind in the blocks that were left out, list over kinds of list over blocks."""
        solutions = ((block, self.solve(ridge, weights, without=block)) for block in self.blocks)
        rows = [[kind.error(block, solution) for kind in self.kinds] for block, solution in solutions]
        return [list(column) for column in zip(*rows)]

    def solve(self, ridge: float, weights: Sequence[float], *, without: int | None = None) -> Tensor:
        """Solution X [P, S] for the sum of the mean squares times their weights, perhaps ``without`` a block."""
        normal, right = (self._sum(part, weights, without) for part in (0, 1))
        return RidgeRegression(normal, right).solve(ridge=torch.tensor(ridge, dtype=torch.float64))

    def _sum(self, part, weights, without):
        """Weighted sum of A^T A (part 0) or A^T B (part 1), a new array."""
        found = torch.zeros_like(self.sums[0][part])
        for kind, sums, count, weight in zip(self.kinds, self.sums, self.counts, weights):
            found.add_(sums[part], alpha=weight / count)
            if without is not None and kind.counts[without]:
                own = kind.parts[without]
                found.sub_((own.normal, own.right)[part], alpha=weight / count)
        return found

    def choose(
        self, weights: Sequence[Sequence[float]], score: Callable[[Sequence[float], Sequence[float]], float]
    ) -> Choice:
        """Search for the ridge and the weights with the smallest ``score(typical_errors, weights)``.

        Parameters
        ----------
        weights : sequence of sequence of float
            Weights of all kinds to compare, one sequence for each. All RIDGES are tried with the first one, and those
            near the best so far with the others.
        """
        if len(self.blocks) < 2:
            return Choice(WITHOUT_BLOCKS, tuple(weights[0]), ())
        tried: dict[tuple, float] = {}

        def try_ridges(ridges, own):
            for ridge in ridges:
                if (ridge, own) not in tried:
                    tried[ridge, own] = score(self.typical_errors(ridge, own), own)
            return min(tried, key=lambda key: tried[key])

        first, *others = map(tuple, weights)
        ridge, own = try_ridges(map(float, RIDGES), first)
        for other in others:  # another weight may need another ridge
            near = [r for r in map(float, RIDGES) if 0.005 < r / ridge < 200]
            ridge, own = try_ridges(near, other)
        for step in STEPS:
            ridge, own = try_ridges([ridge / step, ridge * step], own)
        limit = SAME * tried[ridge, own]
        ridge = max(r for (r, mine), value in tried.items() if mine == own and value <= limit)
        return Choice(ridge, own, self.errors(ridge, own))


def geometric_mean(errors: Sequence[float], weights: Sequence[float] = ()) -> float:
    """Score without units: the geometric mean of the errors of all kinds of labels, whatever their weights."""
    return math.prod(max(error, 1e-300) for error in errors) ** (1 / len(errors))


def weighted_sum(errors: Sequence[float], weights: Sequence[float]) -> float:
    """Score of given weights: the root of the weighted sum of the mean squares."""
    return math.sqrt(sum(weight * error**2 for error, weight in zip(errors, weights)))


def batches_of_blocks(n: int, size: int) -> list[tuple[int, range]]:
    """Batches of at most ``size`` consecutive structures of one block each: list of (block, range of structures)."""
    blocks, found = blocks_of(n), []
    edges = [*np.flatnonzero(np.diff(blocks, prepend=-1)).tolist(), n]
    for block, (start, end) in enumerate(itertools.pairwise(edges)):
        found += [(block, range(k, min(k + size, end))) for k in range(start, end, size)]
    return found
