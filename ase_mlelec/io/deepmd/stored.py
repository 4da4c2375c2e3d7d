"""Contents of a .dp file: a nested dict in JSON and the arrays that it names, checked before they are used.

Models that cannot be imported are refused: by the kind of model first, then by its features.
"""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import h5py
import numpy as np
import torch
from ase.calculators.calculator import CalculatorSetupError
from ase.data import atomic_numbers

from ase_mlelec.checks import printable
from ase_mlelec.io.hdf5 import json_of, read_array
from ase_mlelec.io.text import element_of
from ase_mlelec.nets import ACTIVATIONS
from ase_mlelec.quantities import QUANTITIES

MOST = 10**6  # largest plausible count


class Stored:
    """An open .dp file.

    Attributes
    ----------
    tree
        The nested dict, in which names of datasets stand for arrays.

    Notes
    -----
    All methods raise ValueError for what is missing, damaged or not finite.
    """

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.tree = json_of(file, "json")

    def array(self, name: str, shape: Sequence[int] | None = None) -> torch.Tensor:
        """float64 Tensor of the dataset ``name``, in ``shape``, to which only axes of one may be missing or added."""
        dataset = self.file.get(name) if isinstance(name, str) else None
        if not hasattr(dataset, "shape") or dataset.shape is None:
            raise ValueError(f"no array {name!r}")
        if shape is not None and math.prod(dataset.shape) != math.prod(shape):
            raise ValueError(f"{name} has shape {dataset.shape}, need {tuple(shape)}")
        values = read_array(self.file, name.lstrip("/"), dataset.shape)
        return torch.as_tensor(values if shape is None else np.reshape(values, shape))

    def is_double(self, name: str) -> bool:
        return self.file[name].dtype.itemsize >= 8

    def layers(
        self, net: dict[str, Any], function: str, n_in: int, widths: Sequence[int], n_out: int | None = None
    ) -> list[dict[str, Any]]:
        """list of dict with w, b and idt (None where there is none) of the layers of a net, hidden ones and the last.

        Parameters
        ----------
        function : str
            The activation function of the hidden layers.
        n_out
            Outputs of the last layer, which is linear; None where there is none.
        """
        sizes = [n_in, *widths, *([] if n_out is None else [n_out])]
        sources = part(net, "layers", list)
        if len(sources) != len(sizes) - 1:
            raise ValueError(f"a net has {len(sources)} layers, need {len(sizes) - 1}")
        layers: list = []
        for a, b, source in zip(sizes, sizes[1:], sources):
            last = n_out is not None and len(layers) == len(widths)
            if not last and source.get("resnet") is not True:
                raise ValueError("a hidden layer without the shortcut that such models have")
            if source.get("activation_function") not in (("none", "linear", None) if last else (function,)):
                raise ValueError(f"a layer with the activation function {source.get('activation_function')!r}")
            names = part(source, "@variables", dict)
            other = {k: None if names.get(k) is None else self.array(names[k], (b,)) for k in ("b", "idt")}
            layers.append({"w": self.array(names["w"], (a, b)), **other})
        return layers

    def is_double_net(self, net: dict[str, Any]) -> bool:
        return any(self.is_double(layer["@variables"]["w"]) for layer in net["layers"])


def part(tree: dict[str, Any], key: str, kind: type) -> Any:
    """``tree[key]`` of a nested dict, of type ``kind``."""
    value = tree.get(key) if isinstance(tree, dict) else None
    if type(value) is not kind:
        raise ValueError(
            f"'{key}' is {'missing' if value is None else f'a {type(value).__name__}'}, need a {kind.__name__}"
        )
    return value


def number(tree: dict[str, Any], key: str, least: float = -math.inf, most: float = math.inf) -> float:
    """``tree[key]`` as a finite float between the bounds."""
    value: Any = tree.get(key)
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"'{key}' is {value!r}")
    return float(value)


def counts(tree: dict[str, Any], key: str, least: int = 1) -> list[int]:
    """``tree[key]`` as a list of whole numbers."""
    values = part(tree, key, list)
    if not all(type(value) is int and least <= value <= MOST for value in values):
        raise ValueError(f"'{key}' is {values[:10]!r}, need whole numbers")
    return values


def types(tree: dict[str, Any], key: str, n_types: int) -> set[int]:
    """``tree[key]``, which may be missing, as a set of indices of types."""
    values = tree.get(key) or []
    if type(values) is not list or not all(type(value) is int and 0 <= value < n_types for value in values):
        raise ValueError(f"'{key}' is {str(values)[:60]}, need indices of the {n_types} types")
    return set(values)


def pairs(tree: dict[str, Any], key: str, n_types: int) -> set[tuple[int, int]]:
    """``tree[key]``, which may be missing, as a set of pairs (a, b) of indices of types, a <= b."""
    values = tree.get(key) or []
    if type(values) is not list or not all(
        type(pair) is list and len(pair) == 2 and all(type(k) is int and 0 <= k < n_types for k in pair)
        for pair in values
    ):
        raise ValueError(f"'{key}' is {str(values)[:60]}, need pairs of indices of the {n_types} types")
    return {(min(pair), max(pair)) for pair in values}


SUPPORTED = (
    "supported are se_e2_a models of energy, DOS, dipole and polarizability, without parameters of frames or atoms"
)
OTHER_NAMES = {"none": "linear", "gelu_tf": "gelu"}  # names of activations


def activation(name: str) -> str | None:
    """Our name of an activation function; None where we have no such."""
    name = str(name).lower()
    return next((found for found in (OTHER_NAMES.get(name, name),) if found in ACTIVATIONS), None)


def elements(type_map: Sequence[str]) -> list[str] | None:
    """Chemical symbols of the types of a model; None for names that are not a symbol, in whatever case."""
    symbols = []
    for name in type_map:
        try:
            symbol = element_of(name)
        except ValueError:
            return None
        symbols.append(symbol)
        if symbol.lower() != str(name).lower() or symbol not in atomic_numbers:
            return None
    return symbols if len(set(symbols)) == len(symbols) else None


def refuse_unsupported(path: str | PathLike, tree: dict[str, Any]) -> None:
    """Raise CalculatorSetupError, naming everything that is in the way, unless the model can be imported.

    Parameters
    ----------
    tree : the dict of the whole file
    """
    model = tree.get("model")
    if not isinstance(model, dict):
        raise ValueError("no 'model' in it")
    for reasons in (_kind, _needs):
        found = [reason for reason, present in reasons(tree, model).items() if present]
        if found:
            raise CalculatorSetupError(f"{path}: {printable(', '.join(found))} cannot be imported; {SUPPORTED}")


def _kind(tree, model):
    kind, script = str(model.get("type"))[:40], tree.get("model_def_script")
    modifier = script.get("modifier") if isinstance(script, dict) else None
    modifier = modifier.get("type") if isinstance(modifier, dict) and modifier else modifier
    if "spin" in kind or model.get("spin"):
        return {"spin": True}
    if "model_dict" in model:
        return {"several models in one file (freeze one of them with dp freeze --head)": True}
    if kind != "standard":
        return {f"model type {kind}": True}
    descriptor, fitting = part(model, "descriptor", dict), part(model, "fitting", dict)
    names = [part(each, "type", str)[:40] for each in (descriptor, fitting)]
    return {
        f"the modifier {modifier} (long-range electrostatics)": bool(modifier),
        f"descriptor {names[0]}": names[0] != "se_e2_a",
        f"fitting {names[1]}": names[1] not in {row.deepmd for row in QUANTITIES.values() if row.deepmd},
        "spin": bool(descriptor.get("spin") or fitting.get("spin")),
    }


def _needs(tree, model):
    descriptor, fitting = model["descriptor"], model["fitting"]
    functions = {str(each.get("activation_function"))[:40] for each in (descriptor, fitting)}
    return {
        **{f"activation function {name}": not activation(name) for name in sorted(functions)},
        "frame or atomic parameters": bool(
            fitting.get("numb_fparam") or fitting.get("numb_aparam") or fitting.get("dim_case_embd")
        ),
        "types that are no chemical symbols": elements(model.get("type_map") or []) is None,
        "mixed types": bool(fitting.get("mixed_types")),
        "an exponential switch": bool((descriptor.get("env_mat") or {}).get("use_exp_switch")),
        "tot_ener_zero": bool(fitting.get("tot_ener_zero")),
    }
