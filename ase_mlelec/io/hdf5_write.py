"""New HDF5 files on disks that may become full, with which the HDF5 library does not cope: it ends the program."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import h5py


class _Sink:
    """File for h5py that takes everything: after the first error of the system, which it keeps, it writes no more."""

    def __init__(self, path: str | PathLike):
        self.error: OSError | None = None
        self._file = open(path, "w+b")  # noqa: SIM115  # closed by ``close``

    def _do(self, method: str, *arguments: Any, otherwise: int = 0) -> int:
        if self.error is None:
            try:
                result = getattr(self._file, method)(*arguments)
                return otherwise if result is None else result
            except OSError as error:
                self.error = error
        return otherwise

    def write(self, data: memoryview) -> int:
        return self._do("write", data, otherwise=len(data))

    def read(self, size: int = -1) -> bytes:
        """By which h5py tells files from names; it reads by ``readinto``."""
        return b"" if self.error else self._file.read(size)

    def readinto(self, target: memoryview) -> int:
        return self._do("readinto", target, otherwise=len(target))

    def seek(self, *place: int) -> int:
        return self._do("seek", *place)

    def tell(self) -> int:
        return self._do("tell")

    def truncate(self, size: int) -> int:
        return self._do("truncate", size, otherwise=size)

    def flush(self) -> None:
        self._do("flush")

    def close(self) -> None:
        self._do("close")


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
