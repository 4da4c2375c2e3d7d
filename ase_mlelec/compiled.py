"""Compiled loops, an optional extra: ``pip install ase-mlelec[fast]`` installs numba, which compiles them when first used.

Without numba, and with ``MLELEC_FAST=0`` in the environment, the same results come from PyTorch. numba is imported when a
loop is first needed, and keeps the machine code in a folder ``__pycache__`` beside the source, or in the user's cache
directory where it may not write there.
"""

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

SWITCH = "MLELEC_FAST"
# sums in any order and fused products, as in the matrix products of PyTorch; infinities and NaN stay what they are
ALLOWED = {"reassoc", "contract", "nsz"}


def is_wanted() -> bool:
    """Whether compiled loops are to be used: numba is installed, works, and the environment does not say otherwise."""
    return os.environ.get(SWITCH, "1") != "0" and _works()


@functools.lru_cache
def _works():
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401  # takes half a second
    except ImportError as error:  # such as a version that does not know that of NumPy
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"numba does not work here ({reason}): results are the same but slower", stacklevel=3)
        return False
    return True


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: ``function`` as machine code that runs without Python's lock.

    Only modules that are imported where ``is_wanted()`` may use it.
    """
    import numba

    options: dict[str, Any] = {"nogil": True, "fastmath": ALLOWED, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to write to: compile in every program
        return numba.njit(**options)(function)
