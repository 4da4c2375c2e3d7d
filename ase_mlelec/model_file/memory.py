"""Bound on the memory for building a model, against damaged headers that would need too much."""

import math

import torch
from ase.calculators.calculator import CalculatorSetupError

ROOM = 1 << 26  # bytes, and LAYERS arrays, that the building of a model may take in addition to its file
LAYERS = 1000
_ITEMSIZE = {bool: 1, torch.bool: 1, torch.float32: 4}  # of dtypes that models name; 8 bytes is the largest
FACTORIES = {
    "arange",
    "empty",
    "eye",
    "full",
    "linspace",
    "logspace",
    "ones",
    "rand",
    "randint",
    "randn",
    "randperm",
    "tril_indices",
    "triu_indices",
    "zeros",
}


class Budget(torch.overrides.TorchFunctionMode):
    """Context in which torch can make only as much memory as the arrays of ``state`` justify.

    Raises
    ------
    CalculatorSetupError
        Before memory is taken.
    """

    def __init__(self, path, state):
        super().__init__()
        self.path = path
        # float64 for stored float32, and tables that are computed from arguments
        self.bytes = ROOM + 4 * sum(tensor.nbytes for tensor in state.values())
        self.arrays = LAYERS + 10 * len(state)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in FACTORIES:
            self.bytes -= bytes_of(func.__name__, args, kwargs)
            self.arrays -= 1
            if self.bytes < 0 or self.arrays < 0:
                raise CalculatorSetupError(
                    f"{self.path}: arrays do not fit the architecture in the header (it asks "
                    "for far more or larger ones than the file has); save the model again"
                )
        return func(*args, **kwargs)


def bytes_of(name: str, args, kwargs):
    """Bytes of the array that one of FACTORIES makes.

    torch would tell with device="meta", but imports its compiler for that: 2 s whenever a first model is loaded.
    """
    if name == "arange":
        start, end, step = ((0, *args, 1) if len(args) == 1 else (*args, 1))[:3]
        count = max(0, math.ceil((end - start) / step))
    elif name in ("linspace", "logspace"):
        count = int(kwargs.get("steps", args[2] if len(args) > 2 else 0))
    elif name == "eye":
        count = args[0] * (args[1] if len(args) > 1 else args[0])
    elif name == "randperm":
        count = args[0]
    elif name in ("tril_indices", "triu_indices"):
        count = 2 * args[0] * args[1]
    else:
        size = kwargs.get("size", next((each for each in args if isinstance(each, (tuple, list))), args))
        count = math.prod(size)
    if count < 0:
        raise ValueError(f"{name}: got a negative size")
    return int(count) * _ITEMSIZE.get(kwargs.get("dtype"), 8)
