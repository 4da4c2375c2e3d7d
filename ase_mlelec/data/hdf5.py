"""Our own data sets in HDF5: one way to write, open, select and fingerprint them.

A file says in one of its attributes what it is (FileFormat.mark): JSON that describes the data, with format_version.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_mlelec.atomic_write import replacing
from ase_mlelec.data.data_set import DataSet
from ase_mlelec.io.hdf5 import AGAIN, check_heaps, json_of, one_line, read_array, subgroup, text_attribute

PACKED = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


class FileFormat(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    mark : str
        The attribute that such files have.
    what : str
        What they are called.
    remedy
        What to do where a file is another one, both for messages.
    version : int
        The newest format that is known.
    """

    mark: str
    what: str
    remedy: str
    version: int


FRAMES = FileFormat("ase_mlelec", "data set", "convert the data with 'mlelec convert'", 2)
SNAPSHOTS = FileFormat(
    "ase_mlelec_snapshots",
    "file of snapshots",
    "write it with write_snapshots or convert MALA's with 'mlelec convert'",
    1,
)
HAMILTONIANS = FileFormat("ase_mlelec_hamiltonians", "file of Hamiltonians", "write it with write_hamiltonians", 1)


@contextmanager
def opened(path: str | PathLike, kind: FileFormat) -> Iterator[tuple[h5py.File, dict]]:
    """Within the block: (h5py.File, dict of what describes the data) of a file of the FileFormat ``kind``.

    Raises
    ------
    ValueError
        With the name of the file, for files that are missing, damaged, in use, of another kind or newer, and for
        whatever goes wrong in the block.
    """
    try:
        if not Path(path).is_file():  # a pipe would be waited for
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
    """dict of what describes the data, without format_version."""
    path = file.filename
    if kind.mark not in file.attrs:
        ours = (f"a {other.what}" for other in (FRAMES, SNAPSHOTS, HAMILTONIANS) if other.mark in file.attrs)
        found = next(ours, "an HDF5 file of another program")
        raise ValueError(f"{path}: not a {kind.what}; {kind.remedy}; it is {found}")
    header = json_of(file, kind.mark)
    got = header.pop("format_version", None)
    if type(got) is not int or got < 1:
        raise LookupError(f"got {got!r} as its data format, need a whole number")
    if got > kind.version:
        raise ValueError(f"{path} has data format {got}, this version reads up to {kind.version}; update ase-mlelec")
    return header


@contextmanager
def created(path: str | PathLike, kind: FileFormat, attributes: dict) -> Iterator[h5py.File]:
    """Within the block: a new h5py.File of the FileFormat ``kind``, which appears whole or not at all.

    Raises
    ------
    ValueError
        For attributes with NaN or infinity.
    """
    try:
        header = json.dumps({**attributes, "format_version": kind.version}, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: the attributes cannot be written ({error}); take out NaN and infinity") from None
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        file.attrs[kind.mark] = header
        yield file


def is_of(path: str | PathLike, kind: FileFormat) -> bool:
    """True for an HDF5 file of the FileFormat ``kind``; False for everything else, damaged files included."""
    try:
        if not Path(path).is_file() or not h5py.is_hdf5(path):
            return False
        check_heaps(path)
        with h5py.File(path) as file:
            return kind.mark in file.attrs
    except Exception:  # as in opened
        return False


class StoredDataSet(DataSet):
    """Structures in a file, a group of it for each, read when they are asked for.

    Attributes
    ----------
    attributes : dict
    groups : list of str
        What every structure is for.

    Raises
    ------
    ValueError
        For missing, truncated, damaged, foreign or newer files, at once or when a structure is read.

    Notes
    -----
    Subclasses set ``kind``, write ``_read(group)``, and name what is hashed.
    """

    kind: FileFormat
    common: tuple[str, ...] = ()  # datasets that belong to all structures, attributes of the same names here
    hashed: tuple[tuple[str, tuple[int | None, ...]], ...] = ()  # pairs of a dataset of a structure and its shape

    def __init__(self, path: str | PathLike) -> None:
        self.path = Path(path)
        with opened(self.path, self.kind) as (file, self.attributes):
            self._read_common(file)
            self._keys = sorted(set(file) - set(self.common))
            self.groups = [text_attribute(subgroup(file, key), "group") for key in self._keys]

    def take(self, indices):
        """The structures of these places."""
        chosen = object.__new__(type(self))
        columns = {name: [getattr(self, name)[k] for k in indices] for name in ("_keys", "groups")}
        chosen.__dict__ = self.__dict__ | columns
        return chosen

    def __len__(self):
        return len(self._keys)

    def __getitem__(self, k):
        with opened(self.path, self.kind) as (file, _):
            return self._read(subgroup(file, self._keys[k]))

    def _read_common(self, file):
        """Take what belongs to all structures out of the file."""

    def _read(self, group):
        """What is in the group of one structure."""
        raise NotImplementedError

    def _contents(self):
        yield from (getattr(self, name) for name in self.common)
        with opened(self.path, self.kind) as (file, _):
            for group in (subgroup(file, key) for key in self._keys):
                for name, shape in self.hashed:
                    yield read_array(group, name, shape).astype(group[name].dtype)


def read_atoms(group: h5py.Group) -> Atoms:
    """ase.Atoms of a group."""
    numbers = read_indices(group, "numbers", None, len(chemical_symbols))
    return Atoms(
        numbers,
        read_array(group, "positions", (len(numbers), 3)),
        cell=read_array(group, "cell", (3, 3)),
        pbc=read_array(group, "pbc", (3,), bool),
    )


def write_atoms(group: h5py.Group, atoms: Atoms) -> None:
    """Put a structure into a group, as ``read_atoms`` reads it."""
    for key in ("numbers", "positions", "cell", "pbc"):
        group[key] = np.asarray(getattr(atoms, key))


def read_indices(group: h5py.Group, name: str, length: int | None, count: int) -> np.ndarray:
    """Integers [length] (None: any) of the dataset ``name``, after refusing those that are not 0 to count - 1."""
    values = read_array(group, name, (length,), int)
    if len(values) and not (0 <= values.min() and values.max() < count):
        raise ValueError(
            f"{group.file.filename}: {group.name}/{name}: got {values.min()} to {values.max()}, need 0 to "
            f"{count - 1}; {AGAIN}"
        )
    return values
