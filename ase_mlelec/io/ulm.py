"""ASE's trajectories, which are ulm files: what they claim is held against their size before ASE takes memory for it.

References: ASE 3.26, ase/io/ulm.py, for the layout: "- of Ulm", a tag of 16 bytes, three integers (version, number of
items, place of the table of places), and at every place the length of a JSON text and the text.
"""

import json
import math
import os
from os import PathLike

import numpy as np

from ase_mlelec.io.text import GZIP

INTEGER = np.dtype("<i8")


def check_claims(path: str | PathLike) -> None:
    """Raises ValueError where items, texts or arrays of an ulm file end behind its last byte."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(GZIP)) == GZIP:
            raise ValueError("it is compressed, and ASE reads no compressed trajectory: expand it with gunzip first")
        _, n_items, start = _integers(file, size, 24, 3)
        for place in _integers(file, size, start, n_items):
            (length,) = _integers(file, size, place, 1)
            if not 0 <= length <= size - place - 8:
                raise ValueError(f"an item at byte {place} claims {length} bytes of {size}")
            _check_arrays(json.loads(file.read(length)), size)


def _integers(file, size, place, count):
    if not (0 <= place <= size and 0 <= count <= (size - place) / 8):
        raise ValueError(f"{count} numbers at byte {place} are claimed, the file has {size} bytes")
    file.seek(place)
    return np.frombuffer(file.read(8 * count), INTEGER).tolist()


def _check_arrays(item, size):
    for value in item.values() if isinstance(item, dict) else ():
        if isinstance(value, dict) and "ndarray" in value:
            shape, kind, place = value["ndarray"]
            if min(shape, default=0) < 0 or place < 0 or math.prod(shape) * np.dtype(kind).itemsize > size - place:
                raise ValueError(
                    f"an array of shape {tuple(shape)} at byte {place} is claimed, the file has {size} bytes"
                )
        else:
            _check_arrays(value, size)
