"""deepmd-kit: data folders, and models in its ``.dp`` container (HDF5 with JSON, readable without deepmd-kit).

The ``.pth`` and ``.pb`` containers hold code and are not opened; the converter of deepmd-kit makes a ``.dp`` of them.
"""

from ase_mlelec.io.deepmd.data import read_data

__all__ = ["read_data", "read_model"]


def __getattr__(name):
    if name != "read_model":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from ase_mlelec.io.deepmd.model import read_model  # imports torch, which data do not need

    return read_model
