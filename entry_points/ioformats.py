"""The ``ase.ioformats`` entry point: the file formats that ase.io reads and writes through ase_mlelec."""

from importlib import import_module

from ase.utils.plugins import ExternalIOFormat

IMPLEMENTATION = "ase_mlelec.data.ase_formats"

# No `ext` and no `magic`: .h5 and the HDF5 signature belong to many programs, and the first to claim them wins.
mlelec_h5 = ExternalIOFormat(desc="ase-mlelec data set (HDF5)", code="+S", module=IMPLEMENTATION, glob="*.mlelec.h5")


def __getattr__(name):
    # ase.io looks for the functions in IMPLEMENTATION, the plugins of ase._4 look for them in this module
    if name in ("read_mlelec_h5", "write_mlelec_h5"):
        return getattr(import_module(IMPLEMENTATION), name)
    raise AttributeError(f"module 'ase_mlelec_entry_points.ioformats' has no attribute '{name}'")


# ase._4 takes the first part of the module's name for the name of a distribution and fails (`ase info --plugins`) where
# there is none.  A CalculatorPlugin can be told otherwise, a file format cannot.
__name__ = "ase_mlelec.entry_points.ioformats"
