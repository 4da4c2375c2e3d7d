"""deepmd-kit: data folders, and models in its ``.dp`` container (HDF5 with JSON, readable without deepmd-kit).

The ``.pth`` and ``.pb`` containers hold code and are not opened; the converter of deepmd-kit makes a ``.dp`` of them.
"""

from importlib import import_module

from ase_mlelec.io.deepmd.data import read_data
from ase_mlelec.io.deepmd.write_data import write_data

__all__ = ["read_data", "read_model", "write_data", "write_model"]

OF_MODELS = {"read_model": "model", "write_model": "export"}  # modules that import torch, which data do not need


def __getattr__(name):
    if name not in OF_MODELS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{OF_MODELS[name]}"), name)
