"""Reading of model files: the JSON header, consistency checks of the parts, a bound on the memory for building a model.

The header is stored under the key ``ase_mlelec`` of the safetensors header. It holds format_version; class names and
constructor arguments of descriptors, heads, repulsive core and ranges of the training data; and the metadata of the
model: units, species, energy grid, electronic temperature, provenance of the training, license. It begins with the
digest of its other keys and of all arrays, with their names, types and shapes.
"""

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from ase.calculators.calculator import CalculatorSetupError
from torch import Tensor

from ase_mlelec.model_file.upgrade import FORMAT_VERSION, UPGRADES

DIGEST = re.compile(r'\{"digest": "([0-9a-f]{32})", ')  # the beginning of a header


def read_header(path: str | PathLike, text: str, state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read header and arrays, upgraded to the present format version: (dict, dict of arrays by name)."""
    try:
        header = json.loads(text)
        place = place_of_nan(header)
        if not isinstance(header, dict):
            raise ValueError(f"got a {type(header).__name__}, need a dict")
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    if place is not None:
        raise damaged(path, f"{place} is NaN or infinity")
    version = header.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT_VERSION:
        raise CalculatorSetupError(
            f"{path} has model format {version}, this version reads up to {FORMAT_VERSION}; update ase-mlelec"
        )
    for version in range(header["format_version"], FORMAT_VERSION):
        try:
            header, state = UPGRADES[version](header, state)
        except (TypeError, AttributeError, KeyError, ValueError, IndexError) as error:
            raise damaged(path, repr(error)) from None
    return header, state


def check_digest(path: str | PathLike, text: str, state: Mapping[str, Tensor]) -> None:
    """Raise CalculatorSetupError where the digest in the header ``text`` does not fit the header and the arrays."""
    begins = DIGEST.match(text)
    if begins is None and json.loads(text)["format_version"] == 1 and "digest" not in json.loads(text):
        return
    if begins is None or begins[1] != digest("{" + text[begins.end() :], state):
        raise CalculatorSetupError(
            f"{path} is damaged: its checksum is not that of its header and arrays; copy it "
            "again from where it is whole, or save the model again"
        )


def digest(text: str, state: Mapping[str, Tensor]) -> str:
    """Digest of the header and of the arrays, str."""
    found = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(state):
        tensor = state[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else b"")  # type: ignore[arg-type]
    return found.hexdigest()


def place_of_nan(value: object, name: str = "") -> str | None:
    """The keys that lead to the first number that is not finite, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found = (place_of_nan(entry, f"{name}.{key}".lstrip(".")) for key, entry in items)
    return next((place for place in found if place is not None), None)


def damaged(path: str | PathLike, cause: object) -> CalculatorSetupError:
    """CalculatorSetupError of a file whose header cannot be used."""
    return CalculatorSetupError(f"{path}: damaged header ({' '.join(str(cause).split())}); save the model again")


STORED_TYPES = torch.bfloat16, torch.float32, torch.float64  # of real arrays in a file, whatever type the model has


# arguments that heads of pairs and their descriptors share
OF_PAIRS = "n_channels n_ace n_third symmetry cutoff third".split()


def check_arguments(cls: type, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments whose types differ from the defaults of the class."""
    for name, parameter in inspect.signature(cls.__init__).parameters.items():  # type: ignore[misc]
        if name not in arguments:
            continue
        value, default = arguments[name], parameter.default
        kind: Any = {bool: bool, int: int, float: (int, float), str: str, tuple: list}.get(type(default))
        if name.startswith("n_") and (value is not None or default is not None):
            kind = int
        if kind and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
            raise ValueError(f"{name}: got {value!r}, which is no {getattr(kind, '__name__', 'number')}")
        if name.startswith("n_") and value is not None and value < 0:
            raise ValueError(f"{name}: got {value}, need 0 or more")
        if name == "widths" and any(type(width) is not int or width < 1 for width in value):
            raise ValueError(f"widths: got {value}, need positive integers")


def check_parts(path: str | PathLike, model: Any, header: Mapping[str, Any]) -> None:
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


def check_arrays(path: str | PathLike, model: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
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
        if tensor.dtype not in (STORED_TYPES if real else (wanted[name].dtype,)):
            refuse(f"{name}: got {tensor.dtype}, need {'bfloat16, float32 or float64' if real else wanted[name].dtype}")
        if not is_finite(tensor):
            raise CalculatorSetupError(
                f"{path}: {name} holds NaN or infinity; save the model again, from a training that ended with numbers"
            )


def is_finite(tensor: Tensor) -> bool:
    """Whether an array of any type holds neither NaN nor infinity."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


ROOM = 1 << 26  # bytes, and LAYERS arrays, that the building of a model may take in addition to its file
LAYERS = 1000
_ITEMSIZE = {bool: 1, torch.bool: 1, torch.float32: 4}  # of dtypes that models name; 8 bytes is the largest
FACTORIES = set(
    "arange empty eye full linspace logspace ones rand randint randn randperm tril_indices triu_indices zeros".split()
)


class Budget(torch.overrides.TorchFunctionMode):
    """Context in which torch can make only as much memory as the arrays of ``state`` justify.

    Raises
    ------
    CalculatorSetupError
        Before memory is taken.
    """

    def __init__(self, path: str | PathLike, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.path = path
        # float64 for what is stored in shorter types, and tables that are computed from arguments
        self.bytes = ROOM + sum(max(4 * tensor.nbytes, 16 * tensor.numel()) for tensor in state.values())
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


def bytes_of(name: str, args: Sequence, kwargs: Mapping[str, Any]) -> int:
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
