"""Feed-forward nets as the Deep Potential papers build them, shared by descriptors and heads."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def _linear(x):
    return x


def precision_of(module: torch.nn.Module) -> torch.dtype | None:
    """Precision in which a module wants its input: that of its first array; None without arrays, which takes any."""
    return _precision(module, "_parameters") or _precision(module, "_buffers")


def _precision(module, kind):
    """That of the first parameter or buffer; five times faster than with ``module.parameters()``."""
    for array in getattr(module, kind).values():
        if array is not None and array.is_floating_point():
            return array.dtype
    return next(filter(None, (_precision(part, kind) for part in module._modules.values() if part is not None)), None)


def quick_tanh(x: torch.Tensor) -> torch.Tensor:
    """Hyperbolic tangent, in place of ``x`` where there is no gradient: NumPy's takes a third of the time of PyTorch's."""
    if x.device.type == "cpu" and not x.requires_grad and x.dtype in (torch.float32, torch.float64):
        np.tanh(x.numpy(), out=x.numpy())
        return x
    return torch.tanh(x)


ACTIVATIONS: dict[str, Any] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "gelu": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    "relu": torch.relu,
    "relu6": torch.nn.functional.relu6,
    "linear": _linear,
    # linear above the threshold, where the difference is below the precision of float64
    "softplus": functools.partial(torch.nn.functional.softplus, threshold=40),
}


class DenseLayer(torch.nn.Module):
    """y = f(x W + b) ``[*`` idt], plus x if the width stays, plus [x, x] if it doubles.

    Parameters
    ----------
    activation : name of f in ACTIVATIONS

    References
    ----------
    Zhang et al. 2018 (DeepPot-SE), supplementary; the layer rule of its reference implementation.
    """

    def __init__(self, n_in: int, n_out: int, timestep: bool = False, activation: str = "tanh"):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: got '{activation}', need one of {', '.join(ACTIVATIONS)}; correct it")
        self.activation = ACTIVATIONS[activation]
        self.weight = torch.nn.Parameter(torch.empty(n_in, n_out))
        self.bias = torch.nn.Parameter(torch.empty(n_out))
        self.repeat = n_out // n_in if n_out in (n_in, 2 * n_in) else 0
        # a time step scales the residual only where there is something to add to
        self.idt = torch.nn.Parameter(torch.empty(n_out)) if timestep and self.repeat else None
        with torch.no_grad():
            self.weight.normal_(0, (n_in + n_out) ** -0.5)
            self.bias.normal_(0, 0.5)
            if self.idt is not None:
                self.idt.normal_(0.1, 0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.addmm(self.bias, x, self.weight)
        return self._with_shortcut(quick_tanh(y) if self.activation is torch.tanh else self.activation(y), x)

    def _with_shortcut(self, y, x):
        if self.repeat == 1:
            return y + x if self.idt is None else torch.addcmul(x, y, self.idt)
        if self.idt is not None:
            y = y * self.idt
        if self.repeat == 2:
            y = y + torch.cat([x, x], dim=1)
        return y

    def with_slopes(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs, and the derivatives of tanh by its argument, for ``pull_back``; without a graph."""
        y = quick_tanh(torch.addmm(self.bias, x, self.weight))
        return self._with_shortcut(y, x), 1 - y * y

    def pull_back(self, grad: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        """Derivatives by the inputs from those by the outputs."""
        own = grad * slopes if self.idt is None else grad * slopes * self.idt
        if self.repeat == 1:
            return torch.addmm(grad, own, self.weight.T)
        found = torch.mm(own, self.weight.T)
        return found if self.repeat == 0 else found + grad[:, : found.shape[1]] + grad[:, found.shape[1] :]


class DenseNet(torch.nn.Sequential):
    """Hidden DenseLayers of the given widths; no output layer."""

    def __init__(self, n_in: int, widths: Sequence[int], timestep: bool = False, activation: str = "tanh"):
        sizes = [n_in, *widths]
        super().__init__(*(DenseLayer(a, b, timestep, activation) for a, b in itertools.pairwise(sizes)))


def map_by_species(
    function: Callable[..., torch.Tensor], species: torch.Tensor, n_species: int, *tensors: torch.Tensor
) -> torch.Tensor:
    """Apply ``function(k, *rows)`` to the rows of the tensors [C, ...] with species [C] equal to k; join the results.

    One permutation sorts the rows by species; its backward pass is faster than the backward pass of fancy indexing.
    """
    if n_species == 1:
        return function(0, *tensors)
    if len(species) and bool((species == species[0]).all()):
        return function(int(species[0]), *tensors)
    order = species.argsort(stable=True)
    counts = torch.bincount(species, minlength=n_species).tolist()
    parts = zip(*(tensor.index_select(0, order).split(counts) for tensor in tensors))
    joined = torch.cat([function(k, *part) for k, part in enumerate(parts)])
    return joined.index_select(0, order.argsort())


def constructor_arguments(module: torch.nn.Module, *, rare: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a model file builds a module again from: attributes with the names of the constructor's arguments.

    Parameters
    ----------
    module : torch.nn.Module
    rare : sequence of str
        Arguments that are left out where they have their defaults, because former versions do not know them.

    Returns
    -------
    dict of JSON types
    """
    parameters = inspect.signature(type(module)).parameters.values()
    found = {parameter.name: getattr(module, parameter.name) for parameter in parameters}
    usual = {parameter.name: parameter.default for parameter in parameters if parameter.name in rare}
    return {name: json_value(value) for name, value in found.items() if name not in usual or value != usual[name]}


def json_value(value: Any) -> Any:
    """Return an argument in JSON types: tuples, tensors and dataclasses become lists and dicts."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json_value(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key: json_value(entry) for key, entry in value.items()}
    return [json_value(entry) for entry in value] if isinstance(value, (list, tuple)) else value
