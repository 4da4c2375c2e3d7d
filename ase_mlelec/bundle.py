"""Bundle: one-file models.  Safetensors for the numbers, JSON in its header for the meaning; nothing is executed.

Header (key ``ase_mlelec``): format_version, descriptor(s) and heads as class names of this package with constructor
arguments, the repulsive core and the ranges of the training data, and the model's metadata: units, species, energy
grid, electronic temperature, training provenance, licence.  It begins with the digest of its other keys and of all
arrays, with their names, types and shapes.
"""

import hashlib
import inspect
import json
import math
import os
import re
from pathlib import Path

import torch
from ase.calculators.calculator import CalculatorSetupError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ase_mlelec import descriptors, heads, shipped
from ase_mlelec.atomic_write import replacing
from ase_mlelec.io.checks import printable
from ase_mlelec.model import Model
from ase_mlelec.safety import RepulsiveCore, TrainingRange
from ase_mlelec.shipped import HEADER, PRETRAINED

FORMAT_VERSION = 3
DIGEST = re.compile(r'\{"digest": "([0-9a-f]{32})", ')  # the beginning of a header
UNITS = {"length": "Å", "energy": "eV", "dos": "states/eV including spin degeneracy"}
ROOM = 1 << 26  # bytes, and LAYERS arrays, that the building of a model may take beside those of its file
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


def list_models():
    """Names of the models shipped with the package."""
    return shipped.list_models(PRETRAINED)


def save_model(model, path):
    """Write ``model`` atomically: the file appears whole or not at all.

    Raises CalculatorSetupError for a copy made by ``Model.for_evaluation`` and for a model that holds NaN or infinity,
    OSError where the file cannot be written.
    """
    if model.evaluation_only:
        raise CalculatorSetupError(
            "this model is a copy for evaluation, which a file cannot describe; save the model it was made from"
        )
    header = {
        "format_version": FORMAT_VERSION,
        "species": list(model.species),
        "units": UNITS,
        "descriptor": _described(model.descriptor),
        "electronic": model.electronic and _described(model.electronic),
        "heads": {name: _described(head) for name, head in model.heads.items()},
        "core": model.core and model.core.arguments(),
        "ranges": {name: found.arguments() for name, found in model.ranges.items()},
        "metadata": model.metadata,
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        text = json.dumps(header, allow_nan=False)
    except ValueError:
        raise CalculatorSetupError(
            f"the model's {_place_of_nan(header)} is NaN or infinity, and is not saved; correct it or train again"
        ) from None
    for name, tensor in state.items():
        if not _is_finite(tensor):
            raise CalculatorSetupError(
                f"the model's {name} holds NaN or infinity, and is not saved; train it again "
                "with a smaller learning rate or other data"
            )
    with replacing(path) as partial:
        try:
            save_file(state, partial, metadata={HEADER: f'{{"digest": "{_digest(text, state)}", {text[1:]}'})
        except SafetensorError as error:
            raise OSError(
                f"{path}: cannot be written ({printable(error)}); make room and save the model again"
            ) from None
        partial.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read


def _is_finite(tensor):
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _place_of_nan(value, name=""):
    """The keys that lead to the first number that is not finite, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found = (_place_of_nan(entry, f"{name}.{key}".lstrip(".")) for key, entry in items)
    return next((place for place in found if place is not None), None)


def _digest(text, state):
    """Digest of the header and of the arrays, str."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else b"")
    return digest.hexdigest()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _described(part):
    return {"class": type(part).__name__, "arguments": part.arguments()}


def load_model(model, classes=()):
    """The Model of a shipped name, a path, or a Model (returned as it is).

    model : str or Path; ``.safetensors`` of this package, or deepmd-kit's ``.dp`` (HDF5)
    classes : third-party Descriptor and Head classes that the file names

    Raises CalculatorSetupError for missing, truncated, damaged, foreign or newer files, and those with NaN or infinity.
    Before a model is built what its header asks for is held against the arrays of the file.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise CalculatorSetupError(
            f"got an object of type {type(model).__name__} as model; give a name, a path or a Model"
        )
    name = os.fspath(model)
    if name in list_models():
        name = os.fspath(PRETRAINED / f"{name}.safetensors")
    path = Path(name)
    if not path.exists():
        raise CalculatorSetupError(
            f"no model '{name}': neither a file nor one of the shipped models {', '.join(list_models())}"
        )
    if path.is_dir():
        raise CalculatorSetupError(f"{path} is a folder; give the model file in it")
    if path.suffix in (".dp", ".pth", ".pb", ".pt"):
        from ase_mlelec.io.deepmd import read_model

        return read_model(path)
    return _load_safetensors(path, classes)


def _load_safetensors(path, classes):
    try:
        with safe_open(path, framework="pt") as stored:
            text = (stored.metadata() or {}).get(HEADER)
            if text is None:
                raise CalculatorSetupError(
                    f"{path} is a safetensors file of another program (no 'ase_mlelec' header); "
                    "give a file written by Model.save"
                )
            state = {key: stored.get_tensor(key) for key in stored.keys()}
    except (SafetensorError, OSError, UnicodeError) as error:
        raise CalculatorSetupError(
            f"{path} is truncated or not a safetensors model ({printable(error)}); copy or save it again"
        ) from None
    stored_state = state
    header, state = _read_header(path, text, state)
    model = _build(path, header, classes, state)
    _check_arrays(path, model, state)
    _check_parts(path, model, header)
    # at last: what is wrong with a header or an array is more of a help than that something is
    _check_digest(path, text, stored_state)
    dtypes = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    model.to(dtypes.pop() if len(dtypes) == 1 else torch.float64)
    model.load_state_dict(state)
    return model


def _check_digest(path, text, state):
    begins = DIGEST.match(text)
    if begins is None and json.loads(text)["format_version"] == 1 and "digest" not in json.loads(text):
        return
    if begins is None or begins[1] != _digest("{" + text[begins.end() :], state):
        raise CalculatorSetupError(
            f"{path} is damaged: its checksum is not that of its header and arrays; copy it "
            "again from where it is whole, or save the model again"
        )


def _read_header(path, text, state):
    """(header, dict; arrays by name) of the present format version."""
    try:
        header = json.loads(text)
        place = _place_of_nan(header)
        if not isinstance(header, dict):
            raise ValueError(f"got a {type(header).__name__}, need a dict")
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from None
    if place is not None:
        raise _damaged(path, f"{place} is NaN or infinity")
    check_version(path, header)
    for version in range(header["format_version"], FORMAT_VERSION):
        header, state = UPGRADES[version](header, state)
    return header, state


def check_version(path, header):
    """Refuse files written by a later version of the format."""
    version = header.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT_VERSION:
        raise CalculatorSetupError(
            f"{path} has model format {version}, this version reads up to {FORMAT_VERSION}; update ase-mlelec"
        )


def _from_version_1(header, state):
    """Files had no checksum, and at first neither core nor ranges."""
    return {"core": None, "ranges": {}, **header, "format_version": 2}, state


def _from_version_2(header, state):
    """The arrays of the on-site blocks of a Hamiltonian were those of the head, their species part of their names."""
    of_pairs = {
        name for name, described in _items(header.get("heads")) if dict(_items(described)).get("class") == "PairHead"
    }

    def renamed(key):
        found = re.fullmatch(r"heads\.(.+)\.(?:(linear|turned|third_turned)_(\d+)|onsite\.(\d+)\.(weight|bias))", key)
        if not found or found[1] not in of_pairs:
            return key
        return f"heads.{found[1]}.onsite." + (f"{found[3]}.{found[2]}" if found[2] else f"{found[4]}.net.{found[5]}")

    return {**header, "format_version": 3}, {renamed(key): tensor for key, tensor in state.items()}


def _items(value):
    """Items of what should be a dict, none of anything else."""
    return value.items() if isinstance(value, dict) else ()


UPGRADES = {1: _from_version_1, 2: _from_version_2}


def _damaged(path, cause):
    return CalculatorSetupError(f"{path}: damaged header ({' '.join(str(cause).split())}); save the model again")


def _build(path, header, classes, state):
    """Model of a header; ``state`` bounds the memory that its arrays may take."""
    known = {name: getattr(module, name) for module in (descriptors, heads) for name in module.__all__}
    known.update({cls.__name__: cls for cls in classes})

    def make(described):
        name = described["class"]
        if name not in known:
            raise CalculatorSetupError(f"{path} needs the class {name}; pass it as load_model(path, classes=[{name}])")
        _check_arguments(known[name], described["arguments"])
        return known[name](**described["arguments"])

    try:
        with _Budget(path, state):
            model = Model(
                make(header["descriptor"]),
                {name: make(head) for name, head in header["heads"].items()},
                header.get("metadata"),
                header.get("electronic") and make(header["electronic"]),
                header.get("core") and RepulsiveCore(**header["core"]),
                {name: TrainingRange(**arguments) for name, arguments in header["ranges"].items()},
            )
    except CalculatorSetupError:
        raise
    except Exception as error:  # whatever the constructors of any class make of damaged arguments
        raise _damaged(path, repr(error)) from None
    return model


class _Budget(torch.overrides.TorchFunctionMode):
    """Inside of the block torch makes arrays no larger and no more than those of ``state`` suggest.

    Raises CalculatorSetupError before memory is taken.
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
            self.bytes -= _bytes_of(func.__name__, args, kwargs)
            self.arrays -= 1
            if self.bytes < 0 or self.arrays < 0:
                raise CalculatorSetupError(
                    f"{self.path}: arrays do not fit the architecture in the header (it asks "
                    "for far more or larger ones than the file has); save the model again"
                )
        return func(*args, **kwargs)


def _bytes_of(name, args, kwargs):
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


def _check_arguments(cls, arguments):
    """ValueError for arguments of other types than the defaults of the class: a width that is no number, a flag that is
    one."""
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


def _check_parts(path, model, header):
    """Refuse parts that do not belong together, which the shapes of their arrays need not show."""
    if header.get("species") != list(model.species):
        raise _damaged(path, f"got the species {header.get('species')}, the descriptor has {list(model.species)}")
    for name, head in model.heads.items():
        descriptor = model.descriptor_of(name)
        wanted = {
            "n_features": descriptor.n_features,
            "n_species": len(model.species),
            "species": model.species,
            "n_rows": getattr(descriptor, "n_frame", None),
        }
        for key, value in wanted.items():
            found = getattr(head, key, None)
            if None not in (found, value) and found != value:
                raise _damaged(path, f"{name}: got {key} {found}, the descriptor has {value}")


def _check_arrays(path, model, state):
    """Names, shapes, types and numbers of the arrays of the file against those of the model."""

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
        if not _is_finite(tensor):
            raise CalculatorSetupError(
                f"{path}: {name} holds NaN or infinity; save the model again, from a training that ended with numbers"
            )
