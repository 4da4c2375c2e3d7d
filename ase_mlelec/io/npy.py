"""Arrays in NumPy's .npy files, held against the size of the file before memory is taken."""

import math
import warnings
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.checks import check_finite

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(path: str | PathLike, error: type[Exception] = ValueError) -> NDArray:
    """The numbers of a .npy file as float64, in the shape that they have there.

    Parameters
    ----------
    error
        The reader's class of exceptions, for everything that is no such file or holds no finite real numbers.
    """
    with np.errstate(over="ignore"):
        array = np.array(map_npy(path, error), dtype=np.float64)
    return check_finite(path, "a number", array, error)


def map_npy(path: str | PathLike, error: type[Exception] = ValueError, kinds: str = "fiu") -> NDArray:
    """The numbers of a .npy file, of any finite or infinite value, as an array that is mapped from the file.

    Parameters
    ----------
    error
        The reader's class of exceptions, for everything that is no such file or holds no numbers.
    kinds : str
        Accepted kinds of NumPy data.
    """
    path = Path(path)
    if not path.is_file():
        raise error(f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            shape, dtype = _header(file)
            room = path.stat().st_size - file.tell()
    except Exception as caught:  # the header is Python source, and NumPy's parser lets most classes of errors out
        raise error(
            f"{path}: damaged, or no .npy file of numbers ({_first_line(caught)}); write or copy it again"
        ) from None
    if dtype.hasobject or dtype.kind not in kinds:
        raise error(f"{path}: got data of type {dtype}, need real numbers; save it as float64")
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed != room:
        raise error(
            f"{path}: the header tells {needed:.6g} bytes of data (shape {shape}), the file has {room}; it is "
            "damaged or cut off: write or copy it again"
        )
    try:
        # an empty file cannot be mapped
        return np.load(path, allow_pickle=False, mmap_mode="r" if needed else None)
    except (OSError, ValueError) as caught:
        raise error(f"{path}: cannot be read ({_first_line(caught)}); write or copy it again") from None


def _header(file):
    """(shape, dtype) of an open .npy file, which is left at its first number."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the format")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old spellings in the header
        shape, _, dtype = HEADERS[version](file)
    return shape, dtype


def _first_line(caught):
    return (str(caught).strip().splitlines() or [type(caught).__name__])[0]
