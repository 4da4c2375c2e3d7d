"""Parameters of calculators: checks of them, and what is stated of them, in JSON types for trajectories and databases."""

import enum
import hashlib
import json
import os
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator, CalculatorSetupError, Parameters

from ase_mlelec.model import Model

FIXED = ("model", "device", "dtype", "potential")


class StatedParameters(Parameters):
    """Read-only dictionary of parameters; ``calc.set`` changes them."""

    def _refuse(self, *arguments, **options):
        raise CalculatorSetupError(
            "calc.parameters states what the calculator does; change it with calc.set(name=value)"
        )

    __setitem__ = __delitem__ = __setattr__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self):
        return Parameters, (dict(self),)


class StatesParameters:
    """Mix-in before ase's Calculator: ``parameters`` lists everything that decides the results; ``set`` changes it.

    A subclass writes ``_stated()``, which returns this dict.
    """

    def _stated(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} must define _stated()")

    @property
    def parameters(self) -> StatedParameters:
        """Everything that decides the results, dict of JSON types."""
        return StatedParameters(plain(self._stated()) if self._is_made() else {})

    @parameters.setter
    def parameters(self, parameters: object) -> None:
        if self._is_made():
            raise CalculatorSetupError("parameters cannot be replaced; change them with calc.set(name=value)")

    def _is_made(self):
        """Whether the object is complete; ASE's constructor asks for ``parameters`` before that."""
        return bool({"_named", "parts"} & self.__dict__.keys())

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Return the parameters, as ASE writes them into trajectories and databases."""
        return dict(self.parameters)


class HasElectronicTemperature:
    """Mix-in with the parameter ``electronic_temperature``; ``_drop_electronic`` forgets the results that depend on it."""

    _one_call: Any  # of PresentStructure
    _drop_electronic: Any
    _temperature: float

    @property
    def electronic_temperature(self) -> float:
        """Temperature of the electrons, K."""
        return self._temperature

    @electronic_temperature.setter
    def electronic_temperature(self, temperature: float) -> None:
        check_temperature(temperature)
        with self._one_call():
            self._temperature = float(temperature)
            self._drop_electronic()


def plain(value: object) -> Any:
    """Convert a value to JSON types."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if hasattr(value, "todict"):
        return plain(value.todict())
    if isinstance(value, enum.Enum):
        return value.value
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def stated(calculator: BaseCalculator) -> dict:
    """Name and parameters of any ASE calculator, dict of JSON types."""
    return {"name": calculator.name, **plain(calculator.todict() if hasattr(calculator, "todict") else {})}


def name_of(member: str | os.PathLike | Model, model: Model) -> str:
    """Name of a model: the name or path that the user gave, or else the description of the Model."""
    if isinstance(member, str | os.PathLike):
        return os.fspath(member)
    return str(model.metadata.get("name", f"{', '.join(model.heads)} of {', '.join(model.species)}"))


def _arguments(part):
    try:
        return part.arguments()
    except NotImplementedError:  # a class of another package that is not meant to be saved
        return {}


def fingerprint(model: Model) -> str:
    """Hash of architecture, metadata and weights, 16 hexadecimal digits; the same for a model and its file."""
    parts = {
        name: [type(part).__name__, _arguments(part)]
        for name, part in {
            "descriptor": model.descriptor,
            "electronic": model.electronic,
            "core": model.core,
            "long_range": model.long_range,
            **model.heads,
        }.items()
        if part is not None
    }
    metadata = {name: value for name, value in model.metadata.items() if name != "error_bars"}
    digest = hashlib.blake2b(json.dumps([parts, metadata], sort_keys=True, default=str).encode(), digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith("posteriors."):  # they decide error bars, not results
            continue
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def check_temperature(temperature: float) -> None:
    """Raise CalculatorSetupError unless ``temperature`` is a number in K."""
    _check_number("electronic_temperature", temperature, "K")


def check_skin(skin: float) -> None:
    """Raise CalculatorSetupError unless ``skin`` is a length in Å."""
    _check_number("skin", skin, "Å")


def _check_number(name, value, unit):
    if not (np.isscalar(value) and np.isreal(value) and 0 <= value < np.inf):
        raise CalculatorSetupError(f"got {name}={value!r} {unit}; give 0 or more")


def as_device(device: str | torch.device | None) -> torch.device:
    """Return the torch device of a name; None gives CUDA where it is present."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise CalculatorSetupError(f"got device={device!r}; choose 'cpu', 'cuda' or 'cuda:0'") from None
    if found.type not in ("cpu", "cuda"):  # others, such as Apple's mps, lack double precision
        raise CalculatorSetupError(f"got device={str(device)!r}; choose 'cpu', 'cuda' or 'cuda:0'")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise CalculatorSetupError(f"got device={device!r}, but torch finds no CUDA device; choose 'cpu'")
    return found


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return the torch dtype of a name; None stays None."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (None, torch.float32, torch.float64) or (found is None and dtype is not None):
        raise CalculatorSetupError(f"got dtype={dtype!r}; choose 'float32' or 'float64'")
    return found
