"""Writing the HDF5 files of ``evaluate`` and ``ElectronicRecorder`` so that no complete row is ever lost.

HDF5 files that are written in place do not survive the death of their writer, or a full disk. So a new row goes to a
journal (``run.h5.journal``, see ase_mlelec.analysis.journal) in one piece, which takes some 0.1 ms, and the rows of the
journal go to a copy of the HDF5 file that takes the place of the file when it is complete and on the disk. That happens
whenever fifty times as long has passed as it took the last time, so that it costs 2 % of a run and the file lags behind
by little, and at the end. A program that is killed leaves the journal, from which ``ResultFile`` reads on and which the
next run takes over.

At every moment a row is therefore whole, with a checksum, in one of two files that are not written in place or only
appended to. A power failure may cost rows since the HDF5 file was replaced the last time, as the journal is left to
the operating system; it never changes one unnoticed.
"""

import errno
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ase_mlelec.analysis.journal import AGAIN, ANEW, Journal
from ase_mlelec.analysis.result_file import (
    BESIDE_ROWS,
    FORMAT_VERSION,
    NEW_FILE,
    OPTIONS,
    ResultFile,
    cut,
    journal_of,
    kind_of,
    stacked,
    write_rows,
)
from ase_mlelec.atomic_write import FileLock, not_written, remove_leftovers, replacing

PATIENCE = 50  # times as long as the last replacement of the file took, before the next one
CHANGED = "numbers than were written (checksum)"
ROOM = 1 << 16  # bytes of an HDF5 file beside its rows


class ResultWriter:
    """The one writer of a ResultFile; a context manager.

    Parameters
    ----------
    header : dict of JSON types
        With which an existing file must agree.
    grid : array [S], eV, or None
    resume : bool
        False replaces an existing file, in one step with the first rows that are written: until then it stays.

    Attributes
    ----------
    n_rows : int
        Rows written so far.

    Raises
    ------
    ValueError
        Where another one writes to the file, where an existing one is of another run or damaged.
    OSError
        Where it cannot be written.
    """

    def __init__(self, path: str | PathLike, header: dict, grid: ArrayLike | None = None, resume: bool = True) -> None:
        self.path, self.n_rows = Path(os.path.realpath(path)), 0
        self._header, self._grid = {"format_version": FORMAT_VERSION, **header}, grid
        self._pid, self._journal, self._run = os.getpid(), None, uuid.uuid4().hex
        self._duration, self._replaced = 0.0, -np.inf
        self._axes: dict = {}
        self._lock: FileLock | None = FileLock(self.path)
        try:
            remove_leftovers(self.path)
            remove_leftovers(journal_of(self.path))
            if resume and self.path.exists():
                self._go_on()
            elif not self.path.exists():
                self._replace([], new=True)
        except BaseException:
            self._lock.release()
            raise

    def append(self, rows: Sequence[Mapping]) -> None:
        """Add rows, list of dict of array; when this returns they survive the end of the process.

        Raises
        ------
        OSError
            Where they cannot be written; then the rows before are as they were.
        """
        if self._lock is None:
            raise ValueError(f"{self.path}: is closed; make a new recorder, which goes on with it")
        if os.getpid() != self._pid:
            raise ValueError(f"{self.path} is written by the process that began to; give a forked one its own file")
        rows = [{name: np.asarray(value, kind_of(name)) for name, value in row.items()} for row in rows]
        self._check_axes(rows)
        with self._telling():
            if self._journal is None:
                self._replace(rows, new=self.n_rows == 0)
                return
            self._journal.append(rows)
        self.n_rows += len(rows)
        if time.monotonic() - self._replaced > PATIENCE * self._duration:
            self.update(patient=True)

    def update(self, patient: bool = False) -> None:
        """Bring the HDF5 file up to date.

        Parameters
        ----------
        patient
            Put up with a full disk, as the rows are in the journal, and try again later.
        """
        if self._journal is None or self._journal.n_rows == self._in_file:
            return
        try:
            with self._telling():
                self._replace()
        except OSError:
            self._replaced = time.monotonic()
            if not patient:
                raise

    def close(self) -> None:
        """Bring the HDF5 file up to date, remove the journal, and let others write."""
        if self._lock is None or os.getpid() != self._pid:
            return
        try:
            if self._journal is not None:
                self.update()
                self._journal.path.unlink(missing_ok=True)
        finally:
            if self._journal is not None:
                self._journal.close()
            self._lock.release()
            self._lock = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.close()
        except OSError:
            if kind is None:  # otherwise the first error is the one to be told
                raise

    def begin(self) -> None:
        """Replace the former file even if there are no rows."""
        if self._journal is None and self.n_rows == 0:
            with self._telling():
                self._replace([], new=True)

    # the two files ----------------------------------------------------------------------------------------------

    def _go_on(self):
        """Continue an existing file, after checking its contents."""
        known = ResultFile(self.path)
        header = known.header
        self._check(known, header)
        damaged, n_rows = known.damaged_rows(), known.n_rows
        with known.opened() as (file, rows):
            self._run = str(file.attrs.get("run", self._run))
            self._axes = {name: file[name].ndim - 1 for name in file if name not in BESIDE_ROWS}
            behind = 0
            for row in rows:
                self._axes |= {name: value.ndim for name, value in row.items()}
                behind += 1
        in_file = n_rows - behind
        kept = in_file - len(damaged)
        if damaged and (not kept or behind or damaged != list(range(kept, in_file))):
            raise ValueError(f"{self.path}: rows {_listed(damaged)} have other {CHANGED}; {AGAIN}")
        if damaged:
            told = f"{self.path}: rows {_listed(damaged)}, the last ones, have other {CHANGED} and are dropped"
            warnings.warn(told, stacklevel=4)
        self.n_rows = self._in_file = n_rows - len(damaged)
        if damaged or behind or header["format_version"] < FORMAT_VERSION:
            with self._telling():
                self._replace(keep=kept)
        else:
            self._journal = Journal(journal_of(self.path), self._run, self.n_rows)

    def _check(self, known, header):
        for key, value in json.loads(json.dumps(self._header)).items():
            if key == "format_version":
                if not isinstance(header.get(key), int) or header[key] > value:
                    raise ValueError(
                        f"{self.path} has format version {header.get(key)}, this version writes {value}; "
                        "update ase-mlelec, or give another file"
                    )
            elif key == "settings" and key not in header:  # former versions, and recorders of runs in which they change
                continue
            elif header.get(key) != value:
                told = "" if key == "model" else f" ({_unlike(header.get(key), value)})"
                other = "other" if key.endswith("s") else "another"
                raise ValueError(f"{self.path} was written with {other} {key.replace('_', ' ')}{told}; {ANEW}")
        if not np.array_equal(known.get("energy_grid", ()), () if self._grid is None else self._grid):
            raise ValueError(f"{self.path} has another energy grid than the calculator; {ANEW}")

    def _check_axes(self, rows):
        """Raise ValueError for a row that does not fit the earlier rows."""
        axes = self._axes or {name: value.ndim for row in rows[:1] for name, value in row.items()}
        for row in rows:
            for name, value in row.items():
                if axes.get(name) != value.ndim:
                    raise ValueError(
                        f"quantity '{name}': got an array of {value.ndim} axes, the rows before have "
                        f"{axes.get(name, 'none of that name')}; need the same for all structures: leave "
                        "it out"
                    )
        self._axes = axes

    def _replace(self, rows=None, new=False, keep=None):
        """Put a new HDF5 file in place of the old one, and an empty journal in place of the one whose rows it has.

        Parameters
        ----------
        rows : list of dict
            Rows to append to the rows of the old file; default: the rows in the journal.
        new
            Without the rows of the old file.
        keep
            Number of them, default all.
        """
        begun, old = time.monotonic(), ResultFile(self.path)
        with replacing(self.path) as partial, self._opened(partial, rows, new, keep) as file:
            for arrays in old.blocks_behind() if rows is None else filter(None, [stacked(rows)]):
                write_rows(file, arrays)
            n_rows = int(file.attrs["rows"])
        if self._journal is not None:
            self._journal.close()
        self._journal = Journal(journal_of(self.path), self._run, n_rows)
        self.n_rows = self._in_file = n_rows
        self._replaced, self._duration = time.monotonic(), time.monotonic() - begun

    def _opened(self, partial, rows, new, keep):
        """The new HDF5 file, open for writing: empty, or with the rows of the old one."""
        _reserve(partial, None if new else self.path, self._room(rows))
        old = ResultFile(self.path)
        if not new and old.header["format_version"] == FORMAT_VERSION:
            file = h5py.File(partial, "r+", locking=False, **OPTIONS)
        else:
            file = h5py.File(partial, "w", locking=False, **NEW_FILE)
            file.attrs["ase_mlelec"], file.attrs["run"], file.attrs["rows"] = json.dumps(self._header), self._run, 0
            if self._grid is not None:
                file["energy_grid"] = self._grid
            for arrays in () if new else old.blocks():
                write_rows(file, arrays)
        if keep is not None:
            cut(file, keep)
        return file

    def _room(self, rows):
        """Bytes that the rows to come may take in the HDF5 file."""
        journal = journal_of(self.path)
        if rows is None:
            size = journal.stat().st_size if journal.exists() else 0
        else:
            size = sum(value.nbytes for row in rows for value in row.values())
        return 2 * size + ROOM * (len(self._header.get("quantities", ())) + 4)

    @contextmanager
    def _telling(self):
        """Errors of writing as one line that names the file."""
        try:
            yield
        except (OSError, RuntimeError, KeyError) as error:  # of h5py, the last one too
            safe = f"the {self.n_rows} rows before are safe, in it or in the journal beside it"
            raise not_written(self.path, error, remedy=f"{safe}: make room and repeat the call") from None


def _reserve(path, source, room):
    """Make ``path`` a copy of ``source`` with room behind it, or raise OSError: the HDF5 library copes badly with disks
    that become full."""
    if source is not None:
        shutil.copyfile(source, path)
    with open(path, "ab") as file:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), file.tell(), room)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise


def _unlike(one, other):
    """What differs, as text; of dicts the entries that do."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [name for name in one | other if one.get(name) != other.get(name)]
        return ", ".join(f"{name} {one.get(name)}, not {other.get(name)}" for name in names)
    return f"{one}, not {other}"


def _listed(numbers):
    told = ", ".join(map(str, numbers[:10]))
    return told if len(numbers) <= 10 else f"{told} and {len(numbers) - 10} more"
