"""Contents of a .dp file: a nested dict in JSON and the arrays that it names, checked before they are used."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from ase_mlelec.io.hdf5 import json_of, read_array

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

    def __init__(self, file):
        self.file = file
        self.tree = json_of(file, "json")

    def array(self, name: str, shape=None):
        """float64 Tensor of the dataset ``name``, in ``shape``, to which only axes of one may be missing or added."""
        dataset = self.file.get(name) if isinstance(name, str) else None
        if not hasattr(dataset, "shape") or dataset.shape is None:
            raise ValueError(f"no array {name!r}")
        if shape is not None and math.prod(dataset.shape) != math.prod(shape):
            raise ValueError(f"{name} has shape {dataset.shape}, need {tuple(shape)}")
        values = read_array(self.file, name.lstrip("/"), dataset.shape)
        return torch.as_tensor(values if shape is None else np.reshape(values, shape))

    def is_double(self, name: str):
        return self.file[name].dtype.itemsize >= 8

    def layers(self, net, function, n_in: int, widths: Sequence[int], n_out: int | None = None):
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
            layers.append(
                {
                    "w": self.array(names["w"], (a, b)),
                    **{key: None if names.get(key) is None else self.array(names[key], (b,)) for key in ("b", "idt")},
                }
            )
        return layers

    def is_double_net(self, net):
        return any(self.is_double(layer["@variables"]["w"]) for layer in net["layers"])


def part(tree, key: str, kind):
    """``tree[key]`` of a nested dict, of type ``kind``."""
    value = tree.get(key) if isinstance(tree, dict) else None
    if type(value) is not kind:
        raise ValueError(
            f"'{key}' is {'missing' if value is None else f'a {type(value).__name__}'}, need a {kind.__name__}"
        )
    return value


def number(tree, key: str, least=-math.inf, most=math.inf) -> float:
    """``tree[key]`` as a finite float between the bounds."""
    value = tree.get(key)
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"'{key}' is {value!r}")
    return float(value)


def counts(tree, key: str, least=1):
    """``tree[key]`` as a list of whole numbers."""
    values = part(tree, key, list)
    if not all(type(value) is int and least <= value <= MOST for value in values):
        raise ValueError(f"'{key}' is {values[:10]!r}, need whole numbers")
    return values


def types(tree, key: str, n_types):
    """``tree[key]``, which may be missing, as a set of indices of types."""
    values = tree.get(key) or []
    if type(values) is not list or not all(type(value) is int and 0 <= value < n_types for value in values):
        raise ValueError(f"'{key}' is {str(values)[:60]}, need indices of the {n_types} types")
    return set(values)


def pairs(tree, key: str, n_types):
    """``tree[key]``, which may be missing, as a set of pairs (a, b) of indices of types, a <= b."""
    values = tree.get(key) or []
    if type(values) is not list or not all(
        type(pair) is list and len(pair) == 2 and all(type(k) is int and 0 <= k < n_types for k in pair)
        for pair in values
    ):
        raise ValueError(f"'{key}' is {str(values)[:60]}, need pairs of indices of the {n_types} types")
    return {(min(pair), max(pair)) for pair in values}
