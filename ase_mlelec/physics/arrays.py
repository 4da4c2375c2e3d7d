"""One decorator that lets a function of tensors take NumPy arrays, lists and numbers as well."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def numpy_or_torch(function: Callable) -> Callable[..., Any]:
    """Hand every argument to `function` as a float64 tensor and return the kind that the caller gave.

    One tensor among the arguments is enough to get float64 tensors back, on its device and in its autograd graph;
    otherwise the results are NumPy arrays, and Python floats where they have no dimension. None passes untouched, and
    so does what belongs to a parameter whose default is a string or that is annotated as ``str | None``.

    Raises
    ------
    ValueError
        With the argument's name, for what is not numbers.
    """
    signature = inspect.signature(function)
    names = {
        name
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.default, str) or parameter.annotation == str | None
    }

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        device = next((value.device for value in given.values() if isinstance(value, torch.Tensor)), None)
        result = function(
            **{name: value if name in names else _to_tensor(name, value, device) for name, value in given.items()}
        )
        return result if device is not None else _to_numpy(result)

    return wrapper


def _to_tensor(name, value, device):
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=torch.float64)
    # A copy: torch warns about read-only arrays and refuses negative strides.
    return torch.from_numpy(to_array(name, value)).to(device)


def to_array(name: str, value: ArrayLike) -> NDArray:
    """Convert numbers in any form to a float64 copy; ValueError with their name where this fails."""
    try:
        return np.array(value, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        raise ValueError(f"{name}: got {value!r}, need real numbers; give a NumPy array, a tensor or a list") from None


def _to_numpy(result):
    if isinstance(result, tuple):
        return tuple(_to_numpy(item) for item in result)
    if isinstance(result, dict):
        return {key: _to_numpy(item) for key, item in result.items()}
    return result.item() if result.ndim == 0 else result.numpy()


def check_finite(**named: Any) -> None:
    """Raise ValueError, with the name, for the first tensor or array that holds NaN or infinity."""
    for name, value in named.items():
        if not (abs(value) < math.inf).all():
            raise ValueError(f"{name}: got NaN or infinity, need finite numbers; check the file or model behind them")


def sum_over_chunks(
    function: Callable[..., Tensor], size: int, *tensors: Tensor, shared: Sequence[Tensor] = ()
) -> Tensor:
    """Sum of ``function(*shared``, ``*rows``) over chunks of `size` rows of tensors of equal length.

    Differentiable any number of times with respect to the tensors and those in `shared`, which every chunk sees whole.
    Only one chunk's intermediate results are in memory at a time: the backward pass computes them again.
    """
    chunks = list(zip(*(tensor.split(size) for tensor in tensors)))
    if len(chunks) == 1:
        return function(*shared, *chunks[0])
    return sum(_Recomputed.apply(function, *shared, *chunk) for chunk in chunks)


class _Recomputed(torch.autograd.Function):
    """A function of tensors that keeps nothing but these for the way back.

    As torch.utils.checkpoint, whose first call imports the compiler of torch: 2 s and 70 MB.
    """

    @staticmethod
    def forward(ctx, function, *tensors):
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx, grad):
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            # views, so that the way back ends here
            inputs = [tensor.view_as(tensor) for tensor in ctx.saved_tensors]
            # what grad(value, .., grad) does by way of another import of that kind
            value = (ctx.function(*inputs) * grad.conj()).sum().real
            wanted = [tensor for tensor, needed in zip(inputs, ctx.needs_input_grad[1:]) if needed]
            slopes = iter(torch.autograd.grad(value, wanted, create_graph=differentiable, allow_unused=True))
        return None, *(next(slopes) if needed else None for needed in ctx.needs_input_grad[1:])
