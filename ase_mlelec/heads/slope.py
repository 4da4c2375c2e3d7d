"""A scalar of a fitting net together with its gradient by the features, for losses of both.

torch would differentiate the backward pass of the net once more. With e the scalar, g = de/dD, and v the gradient of the
loss by g, the same is the gradient of the directional derivative of e along v, which takes one more pass through the net.
"""

from typing import Any

import torch
from torch import Tensor

from ase_mlelec.heads.base import FittingNets


def value_and_slope(nets: FittingNets, k: int, features: Tensor) -> tuple[Tensor, Tensor] | None:
    """(e [C], de/dD [C, F]) of the net of species ``k``; None for nets that are not made of tanh layers."""
    layers = list(nets.hidden[k])
    if nets.shift is None or nets.scale.numel() != 1 or any(layer.activation is not torch.tanh for layer in layers):
        return None
    arrays = [array for layer in layers for array in (layer.weight, layer.bias, layer.idt)]
    last = nets.last[k]
    constants = nets.shift[k], nets.inverse[k], nets.bias[k], nets.scale
    return ValueAndSlope.apply(features, constants, [layer.repeat for layer in layers], last.weight, last.bias, *arrays)


class ValueAndSlope(torch.autograd.Function):
    """e = bias + scale (w . h_L + b) and de/dD of hidden layers h = f(x W + b) [* idt] + [x or (x, x)], f = tanh.

    x of the first layer is (D - shift) inverse. The backward pass goes through the layers with the pairs (h, dh), dh the
    change of h along v.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, constants: tuple, repeats: list, w: Tensor, b: Tensor, *arrays: Any
    ) -> tuple[Tensor, Tensor]:
        shift, inverse, bias, scale = constants
        x, steps = (features - shift) * inverse, []
        for repeat, (weight, offset, idt) in zip(repeats, _layers(arrays)):
            a = torch.addmm(offset, x, weight).tanh_()
            steps.append([x, a])
            x = _with_shortcut(a if idt is None else a * idt, x, repeat)
        value = bias + scale * torch.addmv(b, x, w[0])
        slope = (scale * w).expand(len(x), -1)
        for step, repeat, (weight, _, idt) in zip(reversed(steps), reversed(repeats), reversed(_layers(arrays))):
            rate = torch.addcmul(torch.ones_like(step[1]), step[1], step[1], value=-1)  # f' = 1 - f^2
            of_z = slope * rate if idt is None else slope * idt * rate
            step += [rate, slope, of_z]
            slope = _pulled(torch.mm(of_z, weight.T), slope, repeat)
        ctx.steps, ctx.last, ctx.constants, ctx.repeats = steps, x, constants, repeats
        ctx.save_for_backward(w, *arrays)
        return value, slope * inverse

    @staticmethod
    def backward(ctx: Any, of_value: Tensor, of_slope: Tensor) -> tuple:
        w, *arrays = ctx.saved_tensors
        _, inverse, _, scale = ctx.constants
        moving, changes = of_slope * inverse, []
        for (_, _, rate, _, _), repeat, (weight, _, idt) in zip(ctx.steps, ctx.repeats, _layers(arrays)):
            z = torch.mm(moving, weight)
            change = rate * z
            changes.append((moving, z, change))
            moving = _with_shortcut(change if idt is None else change * idt, moving, repeat)
        weighted = (of_value * scale)[:, None]
        of_w = (weighted.T @ ctx.last) + scale * moving.sum(dim=0)
        back, found = weighted * w, list[Tensor | None]()
        for step, passed, repeat, (weight, _, idt) in zip(
            reversed(ctx.steps), reversed(changes), reversed(ctx.repeats), reversed(_layers(arrays))
        ):
            (x, a, rate, slope, of_z), (moving, z, change) = step, passed
            of_idt = None if idt is None else (back * a).sum(dim=0) + (slope * change).sum(dim=0)
            own = (back if idt is None else back * idt) * rate
            own.addcmul_(of_z * a, z, value=-2)  # f'' = -2 f f'
            of_weight = torch.mm(x.T, own).addmm_(moving.T, of_z)
            found = [of_weight, own.sum(dim=0), of_idt, *found]
            back = _pulled(torch.mm(own, weight.T), back, repeat)
        return back * inverse, None, None, of_w, weighted.sum(dim=0), *found


def _layers(arrays):
    """list of (weight, bias, time step or None)."""
    return list(zip(arrays[::3], arrays[1::3], arrays[2::3]))


def _with_shortcut(y, x, repeat):
    """y plus x, or [x, x], or nothing."""
    if not repeat:
        return y
    return y + (x if repeat == 1 else torch.cat([x, x], dim=1))


def _pulled(of_x, of_y, repeat):
    """Gradient by x with that through the shortcut."""
    if not repeat:
        return of_x
    return of_x + (of_y if repeat == 1 else of_y[:, : of_x.shape[1]] + of_y[:, of_x.shape[1] :])
