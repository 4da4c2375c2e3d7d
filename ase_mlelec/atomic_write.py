"""Atomic writing of files, and locks that let one program at a time write a file."""

import errno
import gc
import os
import shutil
import socket
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from ase_mlelec import processes

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

# the disk, not the folder or the name, is the cause
OF_DISK = {getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EDQUOT", "EIO", "EROFS") if hasattr(errno, name)}


@contextmanager
def replacing(path: str | PathLike) -> Iterator:
    """Context with the path of a temporary file, which replaces ``path`` at the end unless an error was raised.

    An interrupted program leaves the old file unchanged, and a reader never sees a part of the new file. The new file is
    on the disk before it replaces the old one, so that one of the two survives a power failure. Of processes that work
    together (see ase_mlelec.processes) the first alone replaces the file. Temporary files of killed programs are removed
    by the next program that writes ``path``.
    """
    path = Path(os.path.realpath(path))  # keeps a link and replaces its target
    _remove_dead(path)
    partial = path.with_name(f".{os.getpid()}.part.{path.name}")
    try:
        yield partial
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())
        if processes.rank() == 0:
            os.replace(partial, path)
    except OSError as error:
        if partial.name in str(error) and not partial.exists():
            raise _closed_folder(path, error) from None
        raise _named(path, partial, error) from None
    finally:
        partial.unlink(missing_ok=True)


def _closed_folder(path, error):
    """PermissionError for ``path``, of which the system made no file beside it, with the cause."""
    return PermissionError(
        f"{path}: cannot be written, since nothing can be made in {path.parent} ({os.strerror(error.errno or 0)}); "
        "choose another folder"
    )


def _named(path, partial, error):
    """An error of the system while ``path`` was written, with its name."""
    inside = error.filename is None or partial.name in str(error.filename)
    if error.errno not in OF_DISK or not inside:
        return error
    return not_written(path, error, remedy="make room or choose another disk, and run it again")


def not_written(path: str | PathLike, error: Exception, *, remedy: str, otherwise: str = "") -> OSError:
    """OSError of one line about a file that could not be written.

    Parameters
    ----------
    error : Exception
        What happened. Libraries raise errors without a number of the system as well, such as RuntimeError.
    remedy : str
        What is safe, and what to do.
    otherwise : str
        The cause where ``error`` has no such number; default: its own text.
    """
    number = getattr(error, "errno", None)
    cause = os.strerror(number) if number else otherwise or " ".join(str(error).split())
    return OSError(number or errno.EIO, f"{path}: cannot be written ({cause}); {remedy}")


@contextmanager
def replacing_folder(path: str | PathLike) -> Iterator:
    """As ``replacing``, with the path of a temporary folder that gets the name ``path``, which must be free, at the end."""
    path = Path(os.path.realpath(path))
    _remove_dead(path)
    partial = path.with_name(f".{os.getpid()}.part.{path.name}")
    partial.mkdir()
    try:
        yield partial
        os.rename(partial, path)
    except OSError as error:
        raise _named(path, partial, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(path: str | PathLike) -> None:
    """Remove temporary files for ``path`` that killed programs left; the caller must hold a FileLock on ``path``."""
    for partial, _ in _partials(Path(os.path.realpath(path))):
        partial.unlink(missing_ok=True)


def _partials(path: Path) -> Iterator[tuple[Path, int]]:
    """Iterate over the temporary files for ``path`` and the numbers of the processes that made them."""
    for name in os.listdir(path.parent) if path.parent.is_dir() else ():
        pid, found, rest = name[1:].partition(".part.")
        if found and name.startswith(".") and pid.isdecimal() and rest == path.name:
            yield path.with_name(name), int(pid)


def _remove_dead(path):
    """Remove the temporary files for ``path`` of processes that are no more."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # others that write it may be on other machines
        return
    try:
        for partial, pid in _partials(path):
            if pid != os.getpid() and not _lives(pid):
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
    except OSError:  # such as a folder of someone else; the write itself tells
        pass


def _lives(pid):
    if os.name == "nt":  # where the signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


class FileLock:
    """Lock for writing to ``path``: one FileLock at a time holds it, until ``release``.

    It is an advisory lock of the operating system (flock) on a file next to ``path`` with the suffix ``.lock``. It ends
    with the process that holds it, so that there are no stale locks. Readers ignore it. Other machines see it if the
    file system passes locks on, as NFS does unless mounted with ``nolock``. On systems without locks there is one
    warning.

    Raises
    ------
    ValueError
        Where another FileLock, of this or another process, holds the lock.
    """

    def __init__(self, path: str | PathLike):
        self.path = Path(os.path.realpath(path))
        self.file = self.path.with_name(f"{self.path.name}.lock")
        self._pid, self._descriptor = os.getpid(), None
        self._acquire()
        _held.add(self)

    def _acquire(self):
        for attempt in range(100):
            try:
                descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            except OSError as error:
                raise _closed_folder(self.path, error) from None
            try:
                if not _flock(descriptor):
                    holder = os.read(descriptor, 200).decode("ascii", "replace").strip()
                    if attempt == 0 and holder.startswith(f"process {self._pid} "):
                        gc.collect()  # the holder of the lock may be garbage that was not collected yet
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
        """Whether the locked file still exists; the former holder of the lock may have removed it."""
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
    """Try to take the lock; returns whether that succeeded, and True, with a warning, on systems without locks."""
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
