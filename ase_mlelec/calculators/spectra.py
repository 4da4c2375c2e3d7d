"""Densities of states as ASE's collections, equal for all calculators."""

import warnings
from collections.abc import Sequence

import numpy as np
from ase.spectrum.doscollection import GridDOSCollection
from ase.spectrum.dosdata import GridDOSData
from numpy.typing import NDArray


class TotalDOS(GridDOSCollection):
    """A collection of one entry, the density of states of a whole structure."""

    def get_weights(self) -> NDArray:
        """Return the weights of the entry, which former versions returned instead of a collection."""
        warnings.warn(
            "get_dos() is a collection now; use get_dos().sum_all().get_weights()", DeprecationWarning, stacklevel=2
        )
        return np.asarray(self.get_all_weights()[0])


def dos_by_atom(energies: NDArray, ados: NDArray, symbols: Sequence[str]) -> GridDOSCollection:
    """Make a collection of one entry per atom.

    Parameters
    ----------
    energies : array [S], eV
    ados : array [N, S], states/eV
    symbols : sequence of N str

    Returns
    -------
    GridDOSCollection
        The info of an entry has index and symbol.
    """
    return GridDOSCollection(
        [
            GridDOSData(energies, row, {"index": str(i), "symbol": symbol})
            for i, (row, symbol) in enumerate(zip(ados, symbols))
        ]
    )


def total_dos(energies: NDArray, dos: NDArray, formula: str) -> GridDOSCollection:
    """Make a collection of one entry, the density of states [S], states/eV, of a structure; info: label."""
    return TotalDOS([GridDOSData(energies, dos, {"label": formula})])
