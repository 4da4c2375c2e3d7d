"""Products of moments, D_l = T_l^T T_l<, as one operation with its derivative."""

import torch

ROWS = (4, 5, 7)  # of T in each angular channel; the first also has s


class Products(torch.autograd.Function):
    """Features [C, l_max M n_axis] from moments [C, rows, M].

    They are products of all M columns with the first n_axis columns, summed over the rows of an angular channel; every
    channel gives a block of features.

    References
    ----------
    Zhang et al. 2018 (NeurIPS), Eq. (13).
    """

    @staticmethod
    def forward(ctx, moments, l_max, n_axis):
        ctx.save_for_backward(moments)
        ctx.rows, ctx.n_axis = ROWS[:l_max], n_axis
        parts = [
            torch.bmm(part, first)
            for part, first in zip(
                moments.transpose(1, 2).split(ctx.rows, dim=2), moments[:, :, :n_axis].split(ctx.rows, dim=1)
            )
        ]
        return _joined(parts).view(len(moments), l_max * moments.shape[2] * n_axis)

    @staticmethod
    def backward(ctx, grad):
        """dD = dT^T T< + T^T dT<: sums of products again, and differentiable as they stand."""
        (moments,) = ctx.saved_tensors
        n_axis, size = ctx.n_axis, moments.shape[2]
        grad = grad.reshape(len(grad), len(ctx.rows), size, n_axis)
        of_all = _joined(
            [
                torch.bmm(first, own)
                for first, own in zip(moments[:, :, :n_axis].split(ctx.rows, dim=1), grad.transpose(2, 3).unbind(1))
            ]
        )
        of_first = _joined([torch.bmm(part, own) for part, own in zip(moments.split(ctx.rows, dim=1), grad.unbind(1))])
        if torch.is_grad_enabled():
            return of_all + torch.nn.functional.pad(of_first, (0, size - n_axis)), None, None
        of_all[:, :, :n_axis].add_(of_first)
        return of_all, None, None


def _joined(parts):
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
