"""Consistency checks of the parts of a model file."""

import inspect

import torch
from ase.calculators.calculator import CalculatorSetupError

from ase_mlelec.model_file.header import damaged
from ase_mlelec.model_file.write import is_finite

OF_PAIRS = (
    "n_channels",
    "n_ace",
    "n_third",
    "symmetry",
    "cutoff",
    "third",
)  # arguments that heads of pairs and their descriptors share


def check_arguments(cls, arguments):
    """Raise ValueError for arguments whose types differ from the defaults of the class."""
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name not in arguments:
            continue
        value, default = arguments[name], parameter.default
        kind = {bool: bool, int: int, float: (int, float), str: str, tuple: list}.get(type(default))
        if name.startswith("n_") and (value is not None or default is not None):
            kind = int
        if kind and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
            raise ValueError(f"{name}: got {value!r}, which is no {getattr(kind, '__name__', 'number')}")
        if name.startswith("n_") and value is not None and value < 0:
            raise ValueError(f"{name}: got {value}, need 0 or more")
        if name == "widths" and any(type(width) is not int or width < 1 for width in value):
            raise ValueError(f"widths: got {value}, need positive integers")


def check_parts(path, model, header):
    """Refuse parts that do not belong together, even if the shapes of their arrays match."""
    if header.get("species") != list(model.species):
        raise damaged(path, f"got the species {header.get('species')}, the descriptor has {list(model.species)}")
    for name, head in model.heads.items():
        descriptor = model.descriptor_of(name)
        wanted = {
            "n_features": descriptor.n_features,
            "n_species": len(model.species),
            "species": model.species,
            "n_rows": getattr(descriptor, "n_frame", None),
            **{key: getattr(descriptor, key, None) for key in OF_PAIRS},
        }
        for key, value in wanted.items():
            found = getattr(head, key, None)
            if None not in (found, value) and found != value:
                raise damaged(path, f"{name}: got {key} {found}, the descriptor has {value}")


def check_arrays(path, model, state):
    """Check names, shapes, types and values of the arrays of the file against the model."""

    def refuse(cause):
        raise CalculatorSetupError(
            f"{path}: arrays do not fit the architecture in the header ({cause}); save the model again"
        ) from None

    wanted = model.state_dict()
    for told, names in (("missing", wanted.keys() - state.keys()), ("not in it", state.keys() - wanted.keys())):
        if names:
            refuse(f"{told}: {', '.join(sorted(names)[:3])}{' and others' if len(names) > 3 else ''}")
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            refuse(f"{name}: got shape {tuple(tensor.shape)}, need {tuple(wanted[name].shape)}")
        real = wanted[name].is_floating_point()
        if tensor.dtype not in ((torch.float32, torch.float64) if real else (wanted[name].dtype,)):
            refuse(f"{name}: got {tensor.dtype}, need {'float32 or float64' if real else wanted[name].dtype}")
        if not is_finite(tensor):
            raise CalculatorSetupError(
                f"{path}: {name} holds NaN or infinity; save the model again, from a training that ended with numbers"
            )
