"""File format ``mlelec-h5`` for ase.io: HDF5 data sets of this package as lists of Atoms.

Energy, forces and stress come as a SinglePointCalculator, spectra as ``arrays["ados"]``, ``info["dos"]`` and
``info["dos_energies"]``. What describes the whole data set (settings, widths) has no place in Atoms and is not
carried; ``ase_mlelec.data.frames`` reads and writes it.
"""

from collections.abc import Sequence
from os import PathLike

from ase import Atoms

from ase_mlelec.data.frames import from_images, read_hdf5, to_images, write_hdf5


def read_mlelec_h5(filename: str | PathLike, index: int | slice = -1) -> list[Atoms]:
    """Read the Atoms at ``index``, an int or a slice, as a list."""
    images = to_images(read_hdf5(filename))
    return images[index] if isinstance(index, slice) else [images[index]]


def write_mlelec_h5(filename: str | PathLike, images: Atoms | Sequence[Atoms]) -> None:
    """Write Atoms with labels; all must have the same labels."""
    write_hdf5(filename, from_images(images))
