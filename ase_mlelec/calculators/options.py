"""Checks of options that all calculators take: device, precision, skin, temperature."""

import numpy as np
import torch
from ase.calculators.calculator import CalculatorSetupError


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
    if found.type == "cuda" and not torch.cuda.is_available():
        raise CalculatorSetupError(f"got device={device!r}, but torch finds no CUDA device; choose 'cpu'")
    return found


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return the torch dtype of a name; None stays None."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (None, torch.float32, torch.float64) or (found is None and dtype is not None):
        raise CalculatorSetupError(f"got dtype={dtype!r}; choose 'float32' or 'float64'")
    return found
