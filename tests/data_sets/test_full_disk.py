"""Disks that become full: one line of error, and the former file is as it was."""

import errno
import gc
import os
import signal

import numpy as np
import pytest
from small_data import make_frames

from ase_mlelec.atomic_write import replacing, replacing_folder
from ase_mlelec.data.frames import read_frames, write_hdf5

resource = pytest.importorskip("resource", reason="limits of files are of Unix")
# Python 3.12 and later warn of every fork beside threads; this child only writes a file and ends
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def closed_files():
    """Files that other tests left open would be written by the children, with their limits."""
    gc.collect()


def in_child(limit, write):
    """(number of the error, its text) of ``write()`` in a child whose files may have ``limit`` bytes; None without one."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        gc.disable()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            write()
            os.write(writer, b"0 ")
        except OSError as error:
            os.write(writer, f"{error.errno} {error.strerror}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as told:
        number, _, text = told.read().partition(" ")
    assert os.waitpid(child, 0)[1] == 0  # the HDF5 library alone would end the program
    return int(number), text


def test_data_sets(tmp_path):
    path, frames = tmp_path / "a.h5", make_frames(6)
    write_hdf5(path, frames)
    former, size = path.read_bytes(), path.stat().st_size
    assert in_child(size + 10_000, lambda: write_hdf5(path, frames)) == (0, "")
    for limit in np.linspace(0, size - 1, 15).astype(int):
        number, text = in_child(int(limit), lambda: write_hdf5(path, frames))
        assert number == errno.EFBIG and text.startswith(f"{path}: cannot be written (")
        assert [*tmp_path.iterdir()] == [path] and path.read_bytes() == former
    assert len(read_frames(path)) == 6


@pytest.mark.parametrize("context", [replacing, replacing_folder])
def test_any_file(context, tmp_path):
    """Of errors that name no file."""
    path = tmp_path / "a"

    def write():
        with context(path) as partial, open(partial / "b" if partial.is_dir() else partial, "w") as file:
            file.write(5000 * "a")

    number, text = in_child(1000, write)
    assert number == errno.EFBIG and text.startswith(f"{path}: cannot be written (") and text.endswith("run it again")
    assert not [*tmp_path.iterdir()]
