"""New HDF5 files on disks that may become full, with which the HDF5 library does not cope: it ends the program."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import h5py


class _Sink:
    """File for h5py that takes everything: after the first error of the system, which it keeps, it goes on in memory.

    The library reads what it wrote before, so that what the disk did not take has to be there all the same.
    """

    def __init__(self, path: str | PathLike):
        self.error: OSError | None = None
        self._file: Any = open(path, "w+b", buffering=0)  # noqa: SIM115  # closed by ``close``

    def _go_on_in_memory(self, error: OSError) -> None:
        disk, self.error = self._file, error
        try:
            disk.seek(0)
            self._file = io.BytesIO(disk.read())
        except OSError:
            self._file = io.BytesIO()
        disk.close()

    def write(self, data: memoryview) -> int:
        data, place, done = memoryview(data).cast("B"), self._file.tell(), 0
        try:
            while done < len(data):
                done += self._file.write(data[done:])
        except OSError as error:
            self._go_on_in_memory(error)
            self._file.seek(place)
            self._file.write(data)
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            self._file.truncate(size)
        except OSError as error:
            self._go_on_in_memory(error)
        missing = size - self.seek(0, io.SEEK_END)  # memory is not made larger by truncate
        if missing > 0:
            self.write(memoryview(bytes(missing)))
        return size

    def read(self, size: int = -1) -> bytes:
        """By which h5py tells files from names; it reads by ``readinto``."""
        return self._file.read(size)

    def readinto(self, target: memoryview) -> int:
        return self._file.readinto(target)

    def seek(self, *place: int) -> int:
        return self._file.seek(*place)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Close the file; some systems tell of a full disk only then."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


@contextmanager
def new_file(path: str | PathLike) -> Iterator[h5py.File]:
    """Context of a new h5py.File.

    Raises
    ------
    OSError
        Where the system did not write all of it.
    """
    sink = _Sink(path)
    try:
        with h5py.File(sink, "w") as file:
            yield file
    finally:
        sink.close()
        if sink.error is not None:  # errors of h5py follow from it
            raise sink.error from None
