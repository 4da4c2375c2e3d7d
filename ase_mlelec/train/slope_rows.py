"""Rows of the least-squares problem of derivatives of sums of vectors, and a check of the order of their indices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ase_mlelec.data.batches import Batch
from ase_mlelec.data.keys import DISPLACEMENT_FIRST, ORDER
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.train.block_ridge import BlockRidge, BlockSums, Choice
from ase_mlelec.train.drawn_nets import DrawnNet
from ase_mlelec.train.slopes import slope_columns

TURNED = 0.8  # error of transposed derivatives, relative to that of the derivatives, below which one is warned


class SlopeSums(BlockSums):
    """BlockSums of derivatives, beside those of transposed labels: ``transposed``, BlockSums with the same A^T A."""

    def __init__(self, n_blocks: int):
        super().__init__(n_blocks)
        self.transposed = BlockSums(n_blocks)

    def add(self, block: int, rows: Tensor, targets: Tensor) -> None:
        """As in the base class, for targets [n, 2] of the labels and of the transposed labels."""
        if not len(rows):
            return
        super().add(block, rows, targets[:, :1])
        mine, other, second = self.parts[block], self.transposed.parts[block], targets[:, 1:].double()
        right = rows.double().T @ second
        other.normal, other.right = mine.normal, other.right + right if len(other.right) else right
        self.transposed.squares[block] += float(second.square().sum())
        self.transposed.counts[block] = self.counts[block]

    def state(self) -> dict[str, Any]:
        """As in the base class, with ``transposed``."""
        return super().state() | {"transposed": self.transposed.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the sums of a state."""
        super().load(state)
        self.transposed.load(state["transposed"])
        for mine, other in zip(self.parts, self.transposed.parts):
            other.normal = mine.normal

    def joined(self, other: Self) -> Self:
        """The blocks of both."""
        found = super().joined(other)
        found.transposed = self.transposed.joined(other.transposed)
        return found


def slope_rows(drawn: DrawnNet, batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows [n, P] and targets [n, 2] of the derivatives of a batch, with the roots of the weights of the labels.

    Targets are the labels, and the transposed labels, less the derivatives of the bias alone.
    """
    label = QUANTITIES[drawn.name].slopes
    if label not in batch.labels:
        like = batch.system.positions
        return like.new_zeros(0, 1), like.new_zeros(0, 2)
    columns, of_bias = slope_columns(drawn, batch)
    given, bias = batch.labels[label], batch.matching(label, of_bias)
    targets = torch.stack([given - bias, given.mT - bias], dim=-1)
    roots = batch.matching(label, batch.weights_of(label)[batch.system.batch]).sqrt()[:, None, None, None]
    return (roots * batch.matching(label, columns)).flatten(0, 2), (roots * targets).flatten(0, 2)


def tell_of_order(kinds: Sequence[BlockSums | None], choice: Choice, tell: Callable[[str], None]) -> None:
    """Warn where transposed derivatives have clearly smaller errors in cross-validation: their indices are swapped."""
    slopes = next((kind for kind in kinds if isinstance(kind, SlopeSums)), None)
    if slopes is None or not choice.errors:
        return
    swapped = [slopes.transposed if kind is slopes else kind for kind in kinds if kind is not None]
    error = BlockRidge(swapped).errors(choice.ridge, choice.weights)[-1]
    if error < TURNED * choice.errors[-1]:
        tell(
            f"WARNING: transposed Born charges fit better, with {100 * (1 - error / choice.errors[-1]):.0f} % smaller "
            "errors of structures left out; their first index must be that of the dipole, the second that of the "
            f'displacement: set {ORDER} = "{DISPLACEMENT_FIRST}" in [data.keys] if the file has the other order'
        )
