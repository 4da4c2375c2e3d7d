"""Reading of arrays and attributes from HDF5 files; any fault of a file is a ValueError.

A file may come from anywhere and be damaged anywhere, so shapes are held against what is stored before memory is taken,
and nothing is followed that points out of the file.
"""

import json
import math
import mmap
from collections.abc import Callable, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ase_mlelec.checks import check_finite

GZIP_RATIO = 1100  # no more bytes than this can come of one
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
SMALL = 1 << 20  # bytes that are always allowed, for chunks of small arrays
LONG = 1 << 26  # bytes of a text
AGAIN = "the file is damaged or was changed: write or copy it again"


def check_heaps(path: str | PathLike) -> None:
    """Raises LookupError for heaps in which the HDF5 library goes on for ever or takes far too much memory.

    Looks at a file once, unless it changes: data are read one structure at a time, again and again.
    """
    now = Path(path).stat()
    _check_heaps_of(str(path), now.st_size, now.st_mtime_ns, now.st_ino)


@lru_cache(maxsize=64)
def _check_heaps_of(path, size, *_):
    """Refuse heaps of texts with entries of wrong lengths, in which the HDF5 library can go on for ever, and texts that
    are said to be longer than the file, for which it takes memory.

    A heap is GCOL, version 1, its size in bytes 8 to 15, and from byte 16 on entries of 16 bytes, in which the first
    two number them and the last eight are the length; what follows is filled up to 8 bytes. Entry 0 is the rest, and
    its length counts from its own beginning. A text is 4 bytes of length, 8 of the heap's place and 4 of the entry's
    number. Source: HDF5 File Format Specification 3.0, III.E.
    """
    if not size:
        return
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(b"GCOL\x01")
        while start >= 0:
            end = min(start + int.from_bytes(data[start + 8 : start + 16], "little"), len(data))
            place, entries = start + 16, set()
            while place + 16 <= end:
                length = int.from_bytes(data[place + 8 : place + 16], "little")
                step = 16 + -(-length // 8) * 8 if data[place] or data[place + 1] else length
                if step < 16 or step > end - place:
                    raise LookupError(f"an entry of wrong length at byte {place}")
                entries.add(data[place : place + 2])
                place += step
            text = data.find(start.to_bytes(8, "little"))
            while text >= 4:
                length = int.from_bytes(data[text - 4 : text], "little")
                # texts begin at multiples of 8; the same bytes may lie elsewhere by chance
                refers = data[text + 8 : text + 10] in entries and not any(data[text + 10 : text + 12])
                if refers and text % 8 == 4 and length > max(LONG, len(data)):
                    raise LookupError(f"a text of {length} bytes at byte {text}, more than the file has")
                text = data.find(start.to_bytes(8, "little"), text + 1)
            start = data.find(b"GCOL\x01", start + 1)


def holds(path: str | PathLike, test: Callable[[h5py.File], bool]) -> bool:
    """Whether ``path`` is an HDF5 file for which ``test(file)`` is true; False for everything else, damaged files too."""
    try:
        if not Path(path).is_file() or not h5py.is_hdf5(path):
            return False
        check_heaps(path)
        with h5py.File(path) as file:
            return test(file)
    except Exception:  # a damaged file can raise nearly anything within HDF5 and h5py
        return False


def one_line(error: BaseException) -> str:
    """What an exception says, or its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def json_of(item: h5py.Group, name: str, kind: type = dict) -> Any:
    """The JSON in an attribute of a file or group, of type ``kind``; ValueError where it is none or holds NaN."""
    path, text = item.file.filename, item.attrs.get(name)

    def refuse(number):
        raise ValueError(f"{path}: {number} in the attribute '{name}'; {AGAIN}")

    def finite(number):
        return float(number) if math.isfinite(float(number)) else refuse(number)

    if not isinstance(text, str):
        raise LookupError(f"attribute '{name}' of {item.name} is missing or no text")
    try:
        value = json.loads(text, parse_constant=refuse, parse_float=finite)
    except (json.JSONDecodeError, RecursionError) as error:
        raise LookupError(f"attribute '{name}' of {item.name} is no JSON: {one_line(error)}") from None
    if not isinstance(value, kind):
        raise ValueError(
            f"{path}: attribute '{name}' of {item.name} holds a {type(value).__name__}, need a {kind.__name__}; {AGAIN}"
        )
    return value


def text_attribute(item: h5py.Group, name: str) -> str:
    """str, an attribute of a group."""
    text = item.attrs.get(name)
    if not isinstance(text, str):
        raise ValueError(f"{item.file.filename}: attribute '{name}' of {item.name} is missing or no text; {AGAIN}")
    return text


def number_attribute(item: h5py.Group, name: str) -> float:
    """float, a finite attribute of a group."""
    number = item.attrs.get(name)
    if number is None or np.ndim(number) or np.asarray(number).dtype.kind not in "fiu":
        raise ValueError(f"{item.file.filename}: attribute '{name}' of {item.name} is missing or no number; {AGAIN}")
    return float(check_finite(item.file.filename, f"attribute '{name}' of {item.name}", number))


def subgroup(group: h5py.Group, name: str) -> h5py.Group:
    """The h5py.Group ``name`` of a group."""
    found = _member(group, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{group.file.filename}: {found.name} is no group; {AGAIN}")
    return found


def read_array(group: h5py.Group, name: str, shape: Sequence[int | None], kind: type = float) -> NDArray:
    """Array of the dataset ``name``; numbers are finite.

    Parameters
    ----------
    shape : tuple of int
        None for any length.
    kind : float, int
        Bool, str, or np.uint16 for numbers that are stored as such.
    """
    dataset = _member(group, name)
    path, place = group.file.filename, f"{group.name.rstrip('/')}/{name}"
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{path}: {place} is no dataset; {AGAIN}")
    got = dataset.shape
    if got is None or len(got) != len(shape) or any(n not in (g, None) for g, n in zip(got, shape)):
        needed = tuple("any" if n is None else n for n in shape)
        raise ValueError(f"{path}: {place} has shape {got}, need {str(needed).replace(chr(39), '')}; {AGAIN}")
    _check_kind(path, place, dataset, kind)
    _check_storage(path, place, dataset)
    if kind is str:
        return dataset.asstr()[()]
    values = dataset[()]
    if kind is np.uint16:
        return values
    if kind is float:
        return check_finite(path, place, np.asarray(values, dtype=float)[()])
    if kind is int and values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{path}: {place} holds {values.max()}; {AGAIN}")
    if kind is bool and not np.isin(values, (0, 1)).all():
        raise ValueError(f"{path}: {place} holds other numbers than 0 and 1; {AGAIN}")
    return values.astype(np.int64 if kind is int else bool)


def _member(group, name):
    """What lies under ``name``; refuses links, which may point anywhere, also out of the file."""
    path = group.file.filename
    if name not in group:
        raise LookupError(f"no {group.name.rstrip('/')}/{name} in it")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{path}: {group.name.rstrip('/')}/{name} is a link; put the data themselves in its place")
    return group[name]


def _check_kind(path, place, dataset, kind):
    fits = {float: "fiu", int: "iu", bool: "biu"}
    if kind is str:
        right = h5py.check_string_dtype(dataset.dtype) is not None
    elif kind is np.uint16:
        right = dataset.dtype == np.uint16
    else:
        right = dataset.dtype.kind in fits[kind] and dataset.dtype.itemsize <= 16 and not dataset.dtype.subdtype
    if not right:
        raise ValueError(f"{path}: {place} is of type {dataset.dtype}, need {kind.__name__}; {AGAIN}")


def _check_storage(path, place, dataset):
    """Refuse external data, and shapes that are larger than the stored data."""
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{path}: the data of {place} are in another file; put them into this one")
    filters = dataset.id.get_create_plist()
    used = [filters.get_filter(k)[0] for k in range(filters.get_nfilters())]
    if not FILTERS.issuperset(used) or len(set(used)) < len(used):
        raise ValueError(
            f"{path}: {place} is packed in a way that is not read; pack it with gzip, for example by h5repack -f GZIP=9"
        )
    stored = min(dataset.id.get_storage_size(), Path(path).stat().st_size)
    most = stored * (GZIP_RATIO if used else 1)
    chunk = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    if math.prod(dataset.shape) * dataset.dtype.itemsize > most or chunk > max(most, SMALL):
        raise ValueError(f"{path}: {place} has shape {dataset.shape}, but only {stored} bytes are stored; {AGAIN}")
