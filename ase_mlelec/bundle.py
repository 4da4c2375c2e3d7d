"""Bundle: one-file models.  Safetensors for the numbers, JSON in its header for the meaning; nothing is executed.

Header (key ``ase_mlelec``): format_version, descriptor(s) and heads as class names of this package with constructor
arguments, the repulsive core and the ranges of the training data, and the model's metadata: units, species, energy
grid, electronic temperature, training provenance, licence.
"""
import json
import os
from importlib.resources import files
from pathlib import Path

import torch
from ase.calculators.calculator import CalculatorSetupError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ase_mlelec import descriptors, heads
from ase_mlelec.io.atomic import replacing
from ase_mlelec.model import Model
from ase_mlelec.safety import RepulsiveCore, TrainingRange

FORMAT_VERSION = 1
UNITS = {"length": "Å", "energy": "eV", "dos": "states/eV including spin degeneracy"}
PRETRAINED = files("ase_mlelec") / "pretrained"


def list_models():
    """Names of the models shipped with the package."""
    return sorted(path.name.removesuffix(".safetensors") for path in PRETRAINED.iterdir()
                  if path.name.endswith(".safetensors"))


def save_model(model, path):
    """Write ``model`` atomically: the file appears whole or not at all.

    Raises CalculatorSetupError for a copy made by ``Model.for_evaluation``.
    """
    if model.evaluation_only:
        raise CalculatorSetupError("this model is a copy for evaluation, which a file cannot describe; "
                                   "save the model it was made from")
    header = {"format_version": FORMAT_VERSION, "species": list(model.species), "units": UNITS,
              "descriptor": _described(model.descriptor),
              "electronic": model.electronic and _described(model.electronic),
              "heads": {name: _described(head) for name, head in model.heads.items()},
              "core": model.core and model.core.arguments(),
              "ranges": {name: found.arguments() for name, found in model.ranges.items()},
              "metadata": model.metadata}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as partial:
        save_file(state, partial, metadata={"ase_mlelec": json.dumps(header)})
        partial.chmod(0o666 & ~_umask())     # safetensors writes files that only their owner can read


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

    Raises CalculatorSetupError for missing, truncated, foreign or newer files.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise CalculatorSetupError(f"got an object of type {type(model).__name__} as model; "
                                   "give a name, a path or a Model")
    name = os.fspath(model)
    if name in list_models():
        name = os.fspath(PRETRAINED / f"{name}.safetensors")
    path = Path(name)
    if not path.exists():
        raise CalculatorSetupError(f"no model '{name}': neither a file nor one of the shipped models "
                                   f"{', '.join(list_models())}")
    if path.is_dir():
        raise CalculatorSetupError(f"{path} is a folder; give the model file in it")
    if path.suffix in (".dp", ".pth", ".pb", ".pt"):
        from ase_mlelec.io.deepmd import read_model
        return read_model(path)
    return _load_safetensors(path, classes)


def _load_safetensors(path, classes):
    try:
        with safe_open(path, framework="pt") as stored:
            header = (stored.metadata() or {}).get("ase_mlelec")
            if header is None:
                raise CalculatorSetupError(f"{path} is a safetensors file of another program (no 'ase_mlelec' header); "
                                           "give a file written by Model.save")
            header = json.loads(header)
            check_version(path, header)
            state = {key: stored.get_tensor(key) for key in stored.keys()}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CalculatorSetupError(f"{path} is truncated or not a safetensors model ({error}); "
                                   "copy or save it again") from None
    model = _build(path, header, classes)
    dtypes = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    model.to(dtypes.pop() if len(dtypes) == 1 else torch.float64)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CalculatorSetupError(f"{path}: arrays do not fit the architecture in the header "
                                   f"({str(error).splitlines()[-1].strip()}); save the model again") from None
    return model


def check_version(path, header):
    """Refuse files written by a later version of the format."""
    version = header.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CalculatorSetupError(f"{path} has model format {version}, this version reads up to {FORMAT_VERSION}; "
                                   "update ase-mlelec")


def _build(path, header, classes):
    known = {name: getattr(module, name) for module in (descriptors, heads) for name in module.__all__}
    known.update({cls.__name__: cls for cls in classes})

    def make(described):
        name = described["class"]
        if name not in known:
            raise CalculatorSetupError(f"{path} needs the class {name}; pass it as load_model(path, classes=[{name}])")
        return known[name](**described["arguments"])

    try:
        return Model(make(header["descriptor"]), {name: make(head) for name, head in header["heads"].items()},
                     header.get("metadata"), header.get("electronic") and make(header["electronic"]),
                     header.get("core") and RepulsiveCore(**header["core"]),
                     {name: TrainingRange(**arguments) for name, arguments in header.get("ranges", {}).items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CalculatorSetupError(f"{path}: damaged header ({error!r}); save the model again") from None
