"""Files that appear whole or not at all, and that one program at a time writes."""

import errno
import gc
import os
import socket
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replacing(path: str | PathLike) -> Iterator:
    """Path of a temporary file with the same suffix that takes the place of ``path`` when the block ends without error.

    An interrupted program leaves the old file as it was, and a reader never sees half of the new one. The new file is
    on the disk before it takes the place of the old one, so that a power failure leaves one of the two.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    partial = path.with_name(f".{os.getpid()}.part.{path.name}")
    try:
        yield partial
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(path: str | PathLike) -> None:
    """Remove what killed programs left of their temporary files for ``path``; only with a FileLock on it."""
    path = Path(os.path.realpath(path))
    for name in os.listdir(path.parent):
        pid, found, rest = name[1:].partition(".part.")
        if found and name.startswith(".") and pid.isdigit() and rest == path.name:
            path.with_name(name).unlink(missing_ok=True)


class FileLock:
    """The right to write to ``path``: held by one FileLock at a time, until ``release``.

    It is an advisory lock of the operating system (flock) on a file beside ``path`` with the suffix ``.lock``, which
    ends with the process that holds it, however that ends: there are no stale locks. Readers do not look at it. Other
    machines see it as far as the file system passes locks on: NFS does unless mounted with ``nolock``. Where locks do
    not exist at all a warning tells so once.

    Raises
    ------
    ValueError
        Where another one, of this process or another, holds the lock.
    """

    def __init__(self, path: str | PathLike):
        self.path = Path(os.path.realpath(path))
        self.file = self.path.with_name(f"{self.path.name}.lock")
        self._pid, self._descriptor = os.getpid(), None
        self._acquire()
        _held.add(self)

    def _acquire(self):
        for attempt in range(100):
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                if not _flock(descriptor):
                    holder = os.read(descriptor, 200).decode("ascii", "replace").strip()
                    if attempt == 0 and holder.startswith(f"process {self._pid} "):
                        gc.collect()  # its owner may be garbage that has not been collected
                        continue
                    raise ValueError(
                        f"{self.path}: is being written by {holder or 'another process'}; wait for it to "
                        "end (close() its recorder), or give another file"
                    )
                if self._is_current(descriptor):
                    self._descriptor = descriptor
                    self._sign()
                    return
            finally:
                if descriptor != self._descriptor:
                    os.close(descriptor)
        raise ValueError(
            f"{self.path}: other processes keep taking and releasing its lock; try again, or give another file"
        )

    def _is_current(self, descriptor):
        """Whether the locked file still lies there: its former holder removes it."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.file))
        except FileNotFoundError:
            return False

    def _sign(self):
        try:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"process {self._pid} on {socket.gethostname()}".encode())
        except OSError:
            pass  # no space: the lock holds all the same, without a name

    def release(self) -> None:
        if self._descriptor is not None and os.getpid() == self._pid:
            self.file.unlink(missing_ok=True)  # before others may take it
            self._drop()

    def _drop(self):
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: weakref.WeakSet = weakref.WeakSet()


def _drop_all():
    for lock in list(_held):
        lock._drop()


if hasattr(os, "register_at_fork"):
    # a forked child shares the lock, and would keep it when its parent is killed
    os.register_at_fork(after_in_child=_drop_all)


def _flock(descriptor):
    """Whether the lock is ours now; True, with a warning, where there are no locks."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "no flock")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        warnings.warn(
            f"this system has no file locks here ({error.strerror}): a second program that writes to the "
            "same file is not noticed",
            stacklevel=5,
        )
    return True
