"""Reading of the HDF5 files of ``evaluate`` and ``ElectronicRecorder``, and their format.

Datasets have the rows along their first axis, and an attribute "unit" where ase_mlelec.quantities knows it. The
attribute "rows" of the file counts the complete ones, "ase_mlelec" is a header in JSON, "run" a random name of the run.
Rows that were written last may lie in a journal beside the file, see ase_mlelec.analysis.result_writer; a file that is
not being written has none, unless its writer was killed.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ase_mlelec.analysis.journal import AGAIN, read_rows, read_run
from ase_mlelec.io.hdf5 import check_heaps
from ase_mlelec.quantities import unit_of

FORMAT_VERSION = 2
LARGEST_SMALL, COMPRESSED = 1 << 27, 1100  # bytes of an array, or so many times the size of the file
SEARCHED = 1 << 26  # bytes; damaged heaps are looked for in files up to this size
CHUNK_BYTES = 32768  # of a dataset in the file
BLOCK_BYTES = 1 << 24  # size of the rows that are in memory at a time
INTEGERS = {"n_atoms": np.dtype("i8"), "fingerprint": np.dtype("u8")}  # the others are float64
CHECKSUM = "row_checksum"  # of version 2; not a quantity
BESIDE_ROWS = ("energy_grid", CHECKSUM)
# checksums of the structure of the file, and no space that is lost when rows are added
OPTIONS = dict(libver=("v110", "v110"))
NEW_FILE = dict(OPTIONS, fs_strategy="fsm", fs_persist=True)


class ResultFile(Mapping):
    """An HDF5 file of ``evaluate`` or ``ElectronicRecorder``: mapping from quantity to array [n, ...], read on demand.

    Beside the quantities there are "n_atoms", "fingerprint" (of each structure) and, where the calculator has one, the
    "energy_grid" [S] of spectra, eV. It can be read while the run goes on, which it does not disturb; one array may
    then have more rows than the one before.

    Parameters
    ----------
    path : path of the file
        It is opened for every access and closed again.

    Attributes
    ----------
    n_rows : int
        The complete rows.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    ValueError
        Where it is damaged or of another program.
    KeyError
        For quantities that are not in it.
    """

    def __init__(self, path: str | PathLike) -> None:
        self.path = Path(path)

    @property
    def n_rows(self) -> int:
        with self.opened() as (file, behind):
            return _count_rows(file) + sum(1 for _ in behind)

    @property
    def header(self) -> dict:
        """dict: format version, quantities, calculator and the metadata of its model."""
        with self.opened() as (file, _):
            return json.loads(file.attrs["ase_mlelec"])

    def __getitem__(self, name):
        with self.opened() as (file, behind):
            if name == "energy_grid" and name in file:
                return file[name][()]
            last = [(list(row), row.get(name)) for row in behind]
            names = _names(file, last[0][0] if last else ())
            if name not in names:
                raise KeyError(f"{self.path} has no '{name}'; it has {', '.join(names)}")
            first = [file[name][: _count_rows(file)]] if name in file else []
            return joined(name, first + [row[None] for _, row in last])

    def __iter__(self):
        with self.opened() as (file, behind):
            return iter(_names(file, next(behind, ())))

    def __len__(self):
        return len(list(iter(self)))

    def damaged_rows(self) -> list[int]:
        """Rows in the HDF5 file whose numbers differ from the written numbers, list of int.

        Files of format version 1 have no checksums; there it is empty.
        """
        with self.opened() as (file, _):
            if CHECKSUM not in file:
                return []
            found = []
            for start, arrays in read_blocks(file, _count_rows(file)):
                wrong = checksums(arrays) != file[CHECKSUM][start : start + len(arrays["n_atoms"])]
                found += (start + np.flatnonzero(wrong)).tolist()
            return found

    def blocks(self) -> Iterator:
        """Iterate over dict of array [n, ...] of the rows in the HDF5 file, some rows at a time."""
        with self.opened() as (file, _):
            yield from (arrays for _, arrays in read_blocks(file, _count_rows(file)))

    def blocks_behind(self) -> Iterator:
        """Iterate over dict of array [n, ...] of the rows that are in the journal alone, some rows at a time."""
        with self.opened() as (_, behind):
            yield from _in_blocks(behind)

    def pieces(self, *names: str) -> Iterator[dict[str, NDArray]]:
        """Iterate over dict of array [n, ...] of some quantities, some rows at a time: for files larger than memory.

        Structures that are smaller than others are filled up with NaN, as far as those of the same piece need it.

        Raises
        ------
        KeyError
            For quantities that are not in it.
        """
        missing = [name for name in names if name not in [*self]]
        if missing:
            raise KeyError(f"{self.path} has no '{missing[0]}'; it has {', '.join(self)}")
        with self.opened() as (file, behind):
            if _count_rows(file):
                yield from (arrays for _, arrays in read_blocks(file, _count_rows(file), names))
            # copies, as the arrays of a row share its memory
            yield from _in_blocks({name: row[name].copy() for name in names} for row in behind)

    @contextmanager
    def opened(self) -> Iterator:
        """(HDF5 file, iterator over the rows in the journal that are not in it)

        The journal is opened first: what it held then is in the HDF5 file that is opened next, if not in the journal.
        """
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path}: no such file")
        journal = journal_of(self.path)
        try:
            tail = open(journal, "rb")  # noqa: SIM115
        except FileNotFoundError:
            tail = None
        try:
            with self._hdf5() as file, self._readable():
                if "rows" not in file.attrs or "ase_mlelec" not in file.attrs:
                    what = "a data set" if "ase_mlelec" in file.attrs else "an HDF5 file of another program"
                    raise ValueError(f"{self.path}: {what}; give a file of evaluate or ElectronicRecorder")
                self._check_sizes(file)
                yield file, self._behind(file, tail, journal)
        finally:
            if tail:
                tail.close()

    def _hdf5(self):
        try:
            if self.path.stat().st_size <= SEARCHED:
                check_heaps(self.path)
            return h5py.File(self.path, "r")
        except (OSError, RuntimeError, LookupError) as error:
            cause = " ".join(str(error).split())
            raise ValueError(
                f"{self.path}: cannot be opened as an HDF5 file ({cause}); if it is truncated, delete it, "
                "or give resume=False to start it anew"
            ) from None

    def _check_sizes(self, file):
        """Raise ValueError for arrays far larger than a file of this size can hold, before memory is allocated."""
        most = max(LARGEST_SMALL, COMPRESSED * self.path.stat().st_size)
        for name, dataset in file.items():
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{self.path}: '{name}' is no array; {AGAIN}")
            size = max(math.prod(dataset.shape), math.prod(dataset.chunks or (0,))) * dataset.dtype.itemsize
            if size > most or dataset.is_virtual or dataset.external:
                raise ValueError(f"{self.path}: '{name}' has shape {dataset.shape}, more than the file holds; {AGAIN}")

    @contextmanager
    def _readable(self):
        """Context that converts errors of the HDF5 library to ValueError; errors that name the file pass unchanged."""
        try:
            yield
        except Exception as error:
            if self.path.name in str(error):
                raise
            raise ValueError(f"{self.path}: is damaged ({' '.join(str(error).split())}); {AGAIN}") from None

    def _behind(self, file, tail, path):
        run, first = read_run(tail, path) if tail else (None, 0)
        if run is None or run != file.attrs.get("run"):
            return  # no journal, or of a run that was replaced by this one
        n = _count_rows(file)
        if first > n:
            raise ValueError(
                f"{path}: begins with row {first}, {self.path} ends with row {n - 1}: rows between them "
                "are lost; copy both files again, or give resume=False to start anew"
            )
        for place, row in read_rows(tail, path, first):
            if place >= n:
                yield row


def journal_of(path: str | PathLike) -> Path:
    """Path of the journal beside a file."""
    path = Path(os.path.realpath(path))
    return path.with_name(f"{path.name}.journal")


def _in_blocks(rows):
    """Iterate over dict of array [n, ...] of rows, dict of array, some at a time."""
    block, size = [], 0
    for row in rows:
        block.append(row)
        size += sum(value.nbytes for value in row.values())
        if size > BLOCK_BYTES:
            yield stacked(block)
            block, size = [], 0
    if block:
        yield stacked(block)


def _names(file, others):
    return list(dict.fromkeys([*(name for name in file if name != CHECKSUM), *others]))


def _count_rows(file):
    """Complete rows: those counted, as far as all datasets have them."""
    return max(0, min([int(file.attrs["rows"]), *(len(file[name]) for name in file if name != "energy_grid")]))


# Arrays of rows


def joined(name: str, parts: Sequence[NDArray]) -> NDArray:
    """Array [n, ...] of arrays [n_k, ...]; where their shapes differ they are filled up with NaN.

    Raises
    ------
    ValueError
        Where they differ in the number of axes.
    """
    if len({part.ndim for part in parts}) > 1:
        raise ValueError(
            f"quantity '{name}': got {' and '.join(sorted({str(part.ndim - 1) for part in parts}))} axes, "
            "need the same number for all structures; leave it out"
        )
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    shape = np.max([part.shape[1:] for part in parts], axis=0)
    found = np.full((sum(map(len, parts)), *shape), np.nan)
    start = 0
    for part in parts:
        found[(slice(start, start + len(part)), *map(slice, part.shape[1:]))] = part
        start += len(part)
    return found


def stacked(rows: Sequence[Mapping]) -> dict:
    """dict of array [n, ...] from a list of dict of array."""
    return {name: joined(name, [np.asarray(row[name])[None] for row in rows]) for name in (rows[0] if rows else ())}


def checksums(arrays: Mapping[str, NDArray]) -> NDArray:
    """Array [n], 64 bits for every row of a dict of array [n, ...]; NaN that fill up rows make no difference."""
    digests = [hashlib.blake2b(digest_size=8) for _ in next(iter(arrays.values()))]
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], kind_of(name))
        filled = name not in INTEGERS and bool(np.isnan(values).any())
        for digest, value in zip(digests, values):
            value = _without_filling(value) if filled else value
            digest.update(f"{name} {value.shape}".encode())
            digest.update(value.tobytes())
    return np.array([int.from_bytes(digest.digest(), "little") for digest in digests], np.uint64)


def _without_filling(value):
    """The smallest leading part of an array that has all its numbers."""
    places = np.argwhere(~np.isnan(value))
    ends = places.max(axis=0) + 1 if len(places) else np.zeros(value.ndim, int)
    return value[tuple(slice(int(end)) for end in ends)]


def kind_of(name: str) -> np.dtype:
    """dtype of a quantity in files."""
    return INTEGERS.get(name, np.dtype("f8"))


# Rows in an open HDF5 file


def read_blocks(file: h5py.File, n_rows: int, names: Sequence[str] | None = None) -> Iterator:
    """Iterate over (first row, dict of array) of the first ``n_rows`` of all or some quantities, some rows at a time."""
    names = [name for name in file if name not in BESIDE_ROWS] if names is None else names
    if not names:
        return
    size = sum(int(np.prod(file[name].shape[1:], dtype=float)) * 8 for name in names)
    step = int(np.clip(BLOCK_BYTES // max(size, 1), 1, 1024))
    for start in range(0, n_rows, step):
        yield start, {name: file[name][start : min(start + step, n_rows)] for name in names}


def write_rows(file: h5py.File, arrays: dict[str, NDArray]) -> None:
    """Add rows, dict of array [n, ...], to an HDF5 file open for writing, behind its complete ones."""
    n = _count_rows(file)
    arrays = arrays | {CHECKSUM: checksums(arrays)}
    for name, values in arrays.items():
        dataset = file[name] if name in file else _create(file, name, values)
        if len(dataset) > n:
            dataset.resize(n, axis=0)  # an unfinished row leaves nothing behind
        dataset.resize((n + len(values), *np.maximum(dataset.shape[1:], values.shape[1:])))
        dataset[(slice(n, None), *map(slice, values.shape[1:]))] = values
    file.attrs["rows"] = n + len(values)


def cut(file: h5py.File, n_rows: int) -> None:
    """Leave the first ``n_rows`` in an HDF5 file open for writing."""
    file.attrs["rows"] = n_rows
    for name in file:
        if name != "energy_grid":
            file[name].resize(n_rows, axis=0)


def _create(file, name, values):
    """An empty dataset that grows along every axis, in chunks of whole rows unless those are large."""
    shape = np.maximum(values.shape[1:], 1)
    kind = np.dtype("u8") if name == CHECKSUM else kind_of(name)
    rows = int(np.clip(CHUNK_BYTES // (8 * np.prod(shape)), 1, 1024))
    form = dict(shape=(0, *values.shape[1:]), maxshape=(None,) * values.ndim, chunks=(rows, *map(int, shape)))
    packed = dict(compression="gzip", compression_opts=1, shuffle=True, fletcher32=True)
    dataset = file.create_dataset(name, dtype=kind, fillvalue=np.nan if kind.kind == "f" else 0, **form, **packed)
    if unit_of(name):
        dataset.attrs["unit"] = np.bytes_(unit_of(name).encode())
    return dataset
