"""Invariant and turning products of the moments of DeepPot-SE."""

from typing import Any

import torch
from torch import Tensor

ROWS = (4, 5, 7)  # of T in each angular channel; the first also has s


class Products(torch.autograd.Function):
    """Features [C, l_max M n_axis] from moments [C, rows, M].

    They are products of all M columns with the first n_axis columns, summed over the rows of an angular channel; every
    channel gives a block of features. With a number ``split``, the columns before it are multiplied by those after it.

    References
    ----------
    Zhang et al. 2018 (NeurIPS), Eq. (13).
    """

    @staticmethod
    def forward(ctx: Any, moments: Tensor, l_max: int, n_axis: int, split: int | None = None) -> Tensor:
        ctx.save_for_backward(moments)
        ctx.rows, ctx.n_axis, ctx.split = ROWS[:l_max], n_axis, split
        left, right = _factors(moments, n_axis, split)
        parts = [
            torch.bmm(part, first)
            for part, first in zip(left.transpose(1, 2).split(ctx.rows, dim=2), right.split(ctx.rows, dim=1))
        ]
        return _joined(parts).view(len(moments), l_max * left.shape[2] * n_axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """dD = dT^T T< + T^T dT<: sums of products again, and differentiable as they stand."""
        (moments,) = ctx.saved_tensors
        n_axis, (left, right) = ctx.n_axis, _factors(moments, ctx.n_axis, ctx.split)
        size = left.shape[2]
        grad = grad.reshape(len(grad), len(ctx.rows), size, n_axis)
        of_left = _joined(
            [torch.bmm(first, own) for first, own in zip(right.split(ctx.rows, dim=1), grad.transpose(2, 3).unbind(1))]
        )
        of_right = _joined([torch.bmm(part, own) for part, own in zip(left.split(ctx.rows, dim=1), grad.unbind(1))])
        if ctx.split is not None:
            return torch.cat([of_left, of_right], dim=2), None, None, None
        if torch.is_grad_enabled():
            return of_left + torch.nn.functional.pad(of_right, (0, size - n_axis)), None, None, None
        of_left[:, :, :n_axis].add_(of_right)
        return of_left, None, None, None


def _factors(moments, n_axis, split):
    """Columns [C, rows, ...] of the moments whose products are features."""
    return (moments, moments[:, :, :n_axis]) if split is None else (moments[:, :, :split], moments[:, :, split:])


def _joined(parts):
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def quadrupoles(moments: Tensor) -> Tensor:
    """Symmetric traceless matrices [C, n, 3, 3] of moments [C, 5, n] of the ``harmonics`` of l = 2."""
    xy, yz, axial, zx, difference = moments.unbind(dim=1)
    xy, yz, zx = xy / 3**0.5, yz / 3**0.5, zx / 3**0.5
    zz = axial / 1.5
    xx, yy = difference / 3**0.5 - zz / 2, -difference / 3**0.5 - zz / 2
    return torch.stack([xx, xy, zx, xy, yy, yz, zx, yz, zz], dim=-1).unflatten(-1, (3, 3))
