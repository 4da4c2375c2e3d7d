"""Sums of ACE invariants with given weights, as an operation of PyTorch that never forms the invariants."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 16  # centers at a time, whose products fit into the cache


class Contracted(torch.autograd.Function):
    """Sums [C] of the features times ``weights`` [species, F] of each coupling; value and derivative in one sweep."""

    @staticmethod
    def forward(
        ctx: Any, couplings: Any, source: Sequence[int], weights: Sequence[Tensor], species: Tensor, *moments: Tensor
    ) -> Tensor:
        total, gradients = moments[0].new_zeros(len(species)), [torch.zeros_like(part) for part in moments]
        for kind in range(len(weights[0])):
            for rows in (species == kind).nonzero()[:, 0].split(BLOCK):
                own = [part.index_select(0, rows) for part in moments]
                slopes = [torch.zeros_like(part) for part in own]
                for k, part, weight in zip(source, couplings, weights):
                    total[rows] += part.add_contracted(own[k], weight[kind], slopes[k])
                for gradient, part in zip(gradients, slopes):
                    gradient[rows] = part
        ctx.gradients = gradients
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, *(grad[:, None, None, None] * part for part in ctx.gradients)
