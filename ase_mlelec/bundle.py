"""Loading of models, by the name of a shipped model or by path. No code in a file is executed.

A model is one ``.safetensors`` file, see ase_mlelec.model_file. READERS has the functions that read files of other
programs.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from ase.calculators.calculator import CalculatorSetupError
from safetensors import SafetensorError, safe_open

from ase_mlelec import descriptors, heads, shipped
from ase_mlelec.checks import NO_PERMISSION, printable
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.hot_energies import HotEnergies
from ase_mlelec.io.deepmd.model import read_model
from ase_mlelec.long_range import LongRange
from ase_mlelec.model import Model
from ase_mlelec.model_file import read
from ase_mlelec.model_file.metadata import check_metadata
from ase_mlelec.model_file.upgrade import FORMAT_VERSION
from ase_mlelec.model_file.write import save_model
from ase_mlelec.quantities import HEADS
from ase_mlelec.safety import RepulsiveCore, TrainingRange
from ase_mlelec.shipped import HEADER, PRETRAINED, SUFFIX
from ase_mlelec.uncertainty import Posterior

__all__ = ["FORMAT_VERSION", "READERS", "list_models", "load_model", "save_model"]

READERS = dict.fromkeys((".dp", ".pth", ".pb", ".pt"), read_model)  # suffix -> function of a path; else ours


def list_models() -> list[str]:
    """Names of the models shipped with the package."""
    return shipped.list_models(PRETRAINED)


@formerly_positional("classes")
def load_model(model: str | os.PathLike | Model, *, classes: Sequence[type] = ()) -> Model:
    """Load a model by the name of a shipped model or by path; a Model is returned unchanged.

    The header of a file is checked against its arrays before the model is built.

    Parameters
    ----------
    model : str, Path or Model
        A name of ``list_models()``, ``.safetensors`` of this package, or deepmd-kit's ``.dp`` (HDF5).
    classes : sequence of type
        Third-party Descriptor and Head classes that the file names.

    Returns
    -------
    Model
        In the precision of the file.

    Raises
    ------
    CalculatorSetupError
        For missing, truncated, damaged, foreign or newer files, and files with NaN or infinity.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise CalculatorSetupError(
            f"got an object of type {type(model).__name__} as model; give a name, a path or a Model"
        )
    name = os.fspath(model)
    if name in list_models():
        name = str(PRETRAINED / f"{name}.safetensors")
    path = Path(name)
    if not path.exists():
        raise CalculatorSetupError(
            f"no model '{name}': neither a file nor one of the shipped models {', '.join(list_models())}"
        )
    if path.is_dir():
        raise CalculatorSetupError(f"{path} is a folder; give the model file in it")
    if path.is_file() and not os.access(path, os.R_OK):  # safetensors calls it missing
        raise CalculatorSetupError(f"{path}: {NO_PERMISSION}")
    if path.suffix in READERS:
        return READERS[path.suffix](path)
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
        other = "give a model that Model.save wrote, or a .dp file; commands take the model before structures and data"
        remedy = "copy or save it again" if path.suffix == SUFFIX else other
        raise CalculatorSetupError(
            f"{path} is truncated or not a safetensors model ({printable(error)}); {remedy}"
        ) from None
    stored_state = state
    header, state = read.read_header(path, text, state)
    model = _build(path, header, classes, state)
    read.check_arrays(path, model, state)
    read.check_parts(path, model, header)
    # the digest is checked last, because messages about a header or an array are more helpful
    read.check_digest(path, text, stored_state)
    dtypes = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    model.to(torch.float64 if torch.float64 in dtypes else torch.float32)
    model.load_state_dict(state)
    return model


def _build(path, header, classes, state):
    """Build the Model of a header; the arrays ``state`` limit the memory that it may take."""
    known = {name: getattr(module, name) for module in (descriptors, heads) for name in module.__all__}
    known.update({cls.__name__: cls for cls in (*HEADS.values(), *classes)})

    def make(described):
        name = described["class"]
        if name not in known:
            raise CalculatorSetupError(f"{path} needs the class {name}; pass it as load_model(path, classes=[{name}])")
        read.check_arguments(known[name], described["arguments"])
        return known[name](**described["arguments"])

    try:
        check_metadata(header.get("metadata") or {})
        with read.Budget(path, state):
            model = Model(
                make(header["descriptor"]),
                {name: make(head) for name, head in header["heads"].items()},
                header.get("metadata"),
                header.get("electronic") and make(header["electronic"]),
                header.get("core") and RepulsiveCore(**header["core"]),
                {name: TrainingRange(**arguments) for name, arguments in header["ranges"].items()},
                header["pairs"] and make(header["pairs"]),
                {name: Posterior(**arguments) for name, arguments in header["posteriors"].items()},
                header["long_range"] and LongRange(**header["long_range"]),
                header["hot"] and HotEnergies(**header["hot"]),
            )
    except CalculatorSetupError:
        raise
    except Exception as error:  # constructors raise any error for damaged arguments
        raise read.damaged(path, repr(error)) from None
    return model
