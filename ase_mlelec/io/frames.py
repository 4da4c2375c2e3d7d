"""Labelled structures: read extxyz, deepmd npy folders and our HDF5; write HDF5.  Nothing here needs torch."""
from pathlib import Path

from ase.io import read

from ase_mlelec.io.data_set import SHAPES, Frame, Frames, join
from ase_mlelec.io.deepmd.data import is_hdf5_data, read_data
from ase_mlelec.io.frames_hdf5 import read_hdf5, write_hdf5
from ase_mlelec.io.images import from_images, to_images

__all__ = ["SHAPES", "Frame", "Frames", "from_images", "join", "read_frames", "read_hdf5", "to_images", "write_hdf5"]


def read_frames(path):
    """Read a data set: ``.h5`` (ours), a deepmd npy folder, or any file ASE reads that carries labels.

    Raises ValueError when there is no such file or it holds no labels.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_dir() or is_hdf5_data(path):
        return Frames([Frame(atoms, labels, f"{path.name}-{i}") for i, (atoms, labels) in enumerate(read_data(path))])
    if path.suffix in (".h5", ".hdf5"):
        return read_hdf5(path)
    frames = from_images(read(path, ":"), path.stem)
    if not any(frame.labels for frame in frames):
        raise ValueError(f"{path}: no energies, forces or spectra in it; write them with a SinglePointCalculator")
    return frames
