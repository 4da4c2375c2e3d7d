"""Cache of computed arrays in an HDF5 file."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import h5py
import torch
from torch import Tensor
from tqdm import tqdm

from ase_mlelec.descriptors import Descriptor


class ArrayCache:
    """Arrays by name, computed once and kept in a file; an interrupted run continues with the arrays in the file.

    Parameters
    ----------
    path : str or Path
        HDF5 file, which is created where it does not exist.
    descriptor : Descriptor
        Descriptor that computes the arrays.

    Raises
    ------
    ValueError
        For a file with arrays of another descriptor.
    """

    def __init__(self, path: str | PathLike, descriptor: Descriptor):
        self.path = Path(path)
        with h5py.File(self.path, "a") as file:
            if file.attrs.setdefault("descriptor", repr(descriptor.arguments())) != repr(descriptor.arguments()):
                raise ValueError(f"{self.path} holds fingerprints of another kind; remove it")

    def fill(
        self, names: Sequence[str], compute: Callable[[int], Tensor], *, progress: bool = True, title: str = "arrays"
    ) -> None:
        """Compute the arrays that the file lacks.

        Parameters
        ----------
        names : sequence of str
        compute : callable
            Function from the place of a name in ``names`` to its array.
        progress : bool
            Whether to show a progress bar with this ``title``.
        """
        with h5py.File(self.path, "a") as file:
            missing = [k for k, name in enumerate(names) if name not in file]
            for k in tqdm(missing, disable=None if progress else True, desc=title, unit=" snapshots"):
                file[names[k]] = compute(k).numpy()
                file.flush()

    def __getitem__(self, name: str) -> Tensor:
        with h5py.File(self.path) as file:
            return torch.from_numpy(file[name][()])
