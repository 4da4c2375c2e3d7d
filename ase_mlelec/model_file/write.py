"""Writing of model files."""

import json
import os
from typing import Any

from ase.calculators.calculator import CalculatorSetupError
from safetensors import SafetensorError
from safetensors.torch import save_file

from ase_mlelec.atomic_write import replacing
from ase_mlelec.checks import printable
from ase_mlelec.model_file.metadata import check_metadata
from ase_mlelec.model_file.read import STORED_TYPES, digest, is_finite, place_of_nan
from ase_mlelec.model_file.upgrade import FORMAT_VERSION
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.shipped import HEADER


def units_of(model: Any) -> dict[str, str]:
    """Units of the predictions of all heads of a model, with conventions, from the table of quantities."""
    rows = [QUANTITIES[name] for name in model.heads if name in QUANTITIES]
    return {row.name: f"{row.unit} {row.note}".strip() for row in rows}


def save_model(model: Any, path: str | os.PathLike) -> None:
    """Write a model atomically: the file appears whole or not at all.

    Parameters
    ----------
    model : Model
    path : str or Path
        Path of the ``.safetensors`` file.

    Raises
    ------
    CalculatorSetupError
        For a copy made by ``Model.for_evaluation``, and for a model that holds NaN or infinity, or metadata of a wrong type.
    OSError
        Where the file cannot be written.
    """
    if model.evaluation_only:
        raise CalculatorSetupError(
            "this model is a copy for evaluation, which a file cannot describe; save the model it was made from"
        )
    header = {
        "format_version": FORMAT_VERSION,
        "species": list(model.species),
        "units": {"length": "Å", **units_of(model)},
        "descriptor": _described(model.descriptor),
        "electronic": model.electronic and _described(model.electronic),
        "pairs": model.pairs and _described(model.pairs),
        "heads": {name: _described(head) for name, head in model.heads.items()},
        "core": model.core and model.core.arguments(),
        "ranges": {name: found.arguments() for name, found in model.ranges.items()},
        "posteriors": {name: found.arguments() for name, found in model.posteriors.items()},
        "long_range": model.long_range and model.long_range.arguments(),
        "hot": model.hot and model.hot.arguments(),
        "metadata": model.metadata,
    }
    _check(model.metadata)
    state = {name: _stored(name, tensor) for name, tensor in model.state_dict().items()}
    try:
        text = json.dumps(header, allow_nan=False)
    except ValueError:
        raise CalculatorSetupError(
            f"the model's {place_of_nan(header)} is NaN or infinity, and is not saved; correct it or train again"
        ) from None
    for name, tensor in state.items():
        if not is_finite(tensor):
            raise CalculatorSetupError(
                f"the model's {name} holds NaN or infinity, and is not saved; train it again "
                "with a smaller learning rate or other data"
            )
    with replacing(path) as partial:
        try:
            save_file(state, partial, metadata={HEADER: f'{{"digest": "{digest(text, state)}", {text[1:]}'})
        except SafetensorError as error:
            raise OSError(
                f"{path}: cannot be written ({printable(error)}); make room and save the model again"
            ) from None
        partial.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read


def _stored(name, tensor):
    """Array as it is written: posteriors and layers of nets in the shortest type that has the same numbers.

    Drawn layers, most posteriors, and what closed forms put behind them for spectra are rounded when they are made. Other
    arrays keep the precision of the model.
    """
    tensor = tensor.detach().cpu().contiguous()
    rounded = name.startswith("posteriors.") or any(part in name for part in (".hidden.", ".last."))
    if not (rounded and tensor.is_floating_point()):
        return tensor
    shorter = (tensor.to(dtype) for dtype in STORED_TYPES if dtype.itemsize < tensor.dtype.itemsize)
    return next((short for short in shorter if bool((short.to(tensor.dtype) == tensor).all())), tensor)


def _described(part):
    return {"class": type(part).__name__, "arguments": part.arguments()}


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check(metadata):
    """CalculatorSetupError for metadata with which the file could not be read."""
    try:
        check_metadata(metadata)
    except ValueError as error:
        raise CalculatorSetupError(f"the model's {error}, and is not saved; correct it") from None
