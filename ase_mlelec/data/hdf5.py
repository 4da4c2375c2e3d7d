"""HDF5 files of the data sets of this package: writing, opening, selection and fingerprint.

One attribute of a file (FileFormat.mark) tells its format: JSON that describes the data, with format_version.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Self

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_mlelec.atomic_write import replacing
from ase_mlelec.data.data_set import DataSet, joined_attributes
from ase_mlelec.data.runs.find import once
from ase_mlelec.io.hdf5 import AGAIN, check_heaps, holds, json_of, one_line, read_array, subgroup, text_attribute
from ase_mlelec.io.hdf5_write import new_file

STRUCTURE = ("numbers", (None,)), ("positions", (None, 3)), ("cell", (3, 3))  # datasets and their shapes
PACKED = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


class FileFormat(NamedTuple):
    """Format of an HDF5 file.

    Attributes
    ----------
    mark : str
        Attribute that marks such files.
    what : str
        Name of the format, for messages.
    remedy : str
        Remedy for a file of another format, for messages.
    version : int
        Newest known version of the format.
    """

    mark: str
    what: str
    remedy: str
    version: int


FRAMES = FileFormat("ase_mlelec", "data set", "convert the data with 'mlelec convert'", 3)
_REMEDY = "convert files of pp.x or MALA with 'mlelec convert', or write it with write_snapshots"
SNAPSHOTS = FileFormat("ase_mlelec_snapshots", "file of snapshots", _REMEDY, 1)
HAMILTONIANS = FileFormat(
    "ase_mlelec_hamiltonians", "file of Hamiltonians", "convert folders of Wannier90 with 'mlelec convert'", 1
)


@contextmanager
def opened(path: str | PathLike, kind: FileFormat) -> Iterator[tuple[h5py.File, dict]]:
    """Context of an open file of the FileFormat ``kind``: (h5py.File, dict that describes the data).

    Raises
    ------
    ValueError
        For files that are missing, damaged, in use, of another format or newer, and for errors within the context; the
        message names the file.
    """
    try:
        if not Path(path).is_file():  # opening a pipe would block
            raise LookupError("there is no such file")
        check_heaps(path)
        with h5py.File(path, "r") as file:
            yield file, _header(file, kind)
    except Exception as error:  # a damaged file can raise nearly anything within HDF5, h5py and NumPy
        if isinstance(error, ValueError) and str(error).startswith(f"{path}"):
            raise
        if isinstance(error, PermissionError) or "unable to lock" in str(error):
            raise ValueError(
                f"{path}: cannot be opened ({one_line(error)}); another program writes to it, or you may not read it"
            ) from None
        raise ValueError(
            f"{path}: missing, truncated or not an HDF5 {kind.what} ({one_line(error)}); write or copy it again"
        ) from None


def _header(file, kind):
    """Description of the data, dict without format_version."""
    path = file.filename
    if kind.mark not in file.attrs:
        ours = (f"a {other.what}" for other in (FRAMES, SNAPSHOTS, HAMILTONIANS) if other.mark in file.attrs)
        found = next(ours, "an HDF5 file of another program")
        remedy = kind.remedy if found.startswith("a ") else "write the data as extxyz with that program or with ASE"
        raise ValueError(f"{path}: not a {kind.what}, it is {found}; {remedy}")
    header = json_of(file, kind.mark)
    got = header.pop("format_version", None)
    if type(got) is not int or got < 1:
        raise LookupError(f"got {got!r} as its data format, need a whole number")
    if got > kind.version:
        raise ValueError(f"{path} has data format {got}, this version reads up to {kind.version}; update ase-mlelec")
    return header


@contextmanager
def created(path: str | PathLike, kind: FileFormat, attributes: dict) -> Iterator[h5py.File]:
    """Context of a new h5py.File of the FileFormat ``kind``, which appears complete or not at all.

    Raises
    ------
    ValueError
        For attributes with NaN or infinity.
    OSError
        Where the file cannot be written.
    """
    try:
        header = json.dumps({**attributes, "format_version": kind.version}, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: the attributes cannot be written ({error}); take out NaN and infinity") from None
    with replacing(path) as partial, new_file(partial) as file:
        file.attrs[kind.mark] = header
        yield file


def is_of(path: str | PathLike, kind: FileFormat) -> bool:
    """True for an HDF5 file of the FileFormat ``kind``; False for everything else, damaged files included."""
    return holds(path, lambda file: kind.mark in file.attrs)


class StoredDataSet(DataSet):
    """Structures in one or more HDF5 files, one HDF5 group each, read on demand.

    Attributes
    ----------
    path : Path
        The first file.
    attributes : dict
    groups : list of str
        Group of every structure.

    Raises
    ------
    ValueError
        For missing, truncated, damaged, foreign or newer files, at once or when a structure is read; for files whose
        attributes or common datasets differ.

    Notes
    -----
    Subclasses set ``kind`` and ``hashed``, and write ``_read(group)``.
    """

    kind: FileFormat
    common: tuple[str, ...] = ()  # names of datasets for all structures, and of the attributes that hold them
    hashed: tuple[tuple[str, tuple[int | None, ...]], ...] = ()  # (name, shape) of datasets in the fingerprint

    def __init__(self, path: str | PathLike, *others: str | PathLike) -> None:
        self.path = Path(path)
        with opened(self.path, self.kind) as (file, self.attributes):
            self._read_common(file)
            keys = sorted(set(file) - set(self.common))
            self.groups = [text_attribute(subgroup(file, key), "group") for key in keys]
        self._places = [(self.path, key) for key in keys]
        for other in once([path, *others])[1:]:
            self._add(type(self)(other))

    def _add(self, other: Self) -> None:
        """Add the structures of another data set."""
        try:
            self._check_alike(other)
            described = [self.attributes, other.attributes]
            self.attributes = joined_attributes(described, described if self.common else ())
        except ValueError as error:
            raise ValueError(f"{self.path} and {other.path}: {error}") from None
        self._places, self.groups = self._places + other._places, self.groups + other.groups

    def file_of(self, k: int) -> Path:
        """The file that holds structure ``k``."""
        return self._places[k][0]

    def by_file(self) -> list[tuple[Path, Self]]:
        """Files with their structures."""
        files = dict.fromkeys(path for path, _ in self._places)
        return [(file, self.take([k for k, (path, _) in enumerate(self._places) if path == file])) for file in files]

    def take(self, indices: Sequence[int]) -> Self:
        """The structures at these indices, a data set of the same kind."""
        chosen = object.__new__(type(self))
        columns = {name: [getattr(self, name)[k] for k in indices] for name in ("_places", "groups")}
        chosen.__dict__ = self.__dict__ | columns
        return chosen

    def __len__(self):
        return len(self._places)

    def __getitem__(self, k):
        with self._group(k) as group:
            return self._read(group)

    @contextmanager
    def _group(self, k: int) -> Iterator[h5py.Group]:
        """Context of the HDF5 group of structure ``k``."""
        path, key = self._places[k]
        with opened(path, self.kind) as (file, _):
            yield subgroup(file, key)

    def _read_common(self, file):
        """Read the datasets that belong to all structures."""

    def _check_alike(self, other: Self) -> None:
        """Raise ValueError where datasets that belong to all structures differ."""

    def _read(self, group):
        """Read one structure from its HDF5 group."""
        raise NotImplementedError(f"{type(self).__name__} must define _read(group)")

    def _contents(self):
        yield from (getattr(self, name) for name in self.common)
        for path, places in itertools.groupby(self._places, key=itemgetter(0)):
            with opened(path, self.kind) as (file, _):
                for group in (subgroup(file, key) for _, key in places):
                    for name, shape in self.hashed:
                        yield read_array(group, name, shape).astype(group[name].dtype)


def read_atoms(group: h5py.Group) -> Atoms:
    """Read ase.Atoms from an HDF5 group."""
    numbers = read_indices(group, "numbers", None, len(chemical_symbols))
    cell, pbc = read_array(group, "cell", (3, 3)), read_array(group, "pbc", (3,), bool)
    return Atoms(numbers, read_array(group, "positions", (len(numbers), 3)), cell=cell, pbc=pbc)


def write_atoms(group: h5py.Group, atoms: Atoms) -> None:
    """Write a structure to an HDF5 group, for ``read_atoms``."""
    for key in ("numbers", "positions", "cell", "pbc"):
        group[key] = np.asarray(getattr(atoms, key))


def read_indices(group: h5py.Group, name: str, length: int | None, count: int) -> np.ndarray:
    """Read the integers [length] of the dataset ``name``; refuse integers outside of 0 to count - 1.

    ``length`` = None accepts any length.
    """
    values = read_array(group, name, (length,), int)
    if len(values) and not (0 <= values.min() and values.max() < count):
        raise ValueError(
            f"{group.file.filename}: {group.name}/{name}: got {values.min()} to {values.max()}, need 0 to "
            f"{count - 1}; {AGAIN}"
        )
    return values
