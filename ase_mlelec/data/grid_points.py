"""Grid points of snapshots with fingerprints and LDOS, read piece by piece."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from ase_mlelec.data.array_cache import ArrayCache
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.physics import fermi
from ase_mlelec.physics.energy_zero import EnergyZero
from ase_mlelec.system import System

MEMORY = 3e9  # bytes of fingerprints and LDOS that are kept in memory; the rest is read again in every epoch


@dataclass(frozen=True)
class GridItem:
    """One snapshot as tensors.

    Attributes
    ----------
    features : Tensor [G, F]
        Fingerprints of all grid points.
    points : Tensor [P]
        Grid points with an LDOS.
    ldos : Tensor [P, S], 1/(eV Å^3)
    dos : Tensor [S], states/eV
        Total DOS on energies relative to ``level``, eV.
    number, energy : Tensor [S]
        Weights that integrate a DOS to the number of electrons and to the band energy, at the Fermi level of the data.
    """

    features: torch.Tensor
    points: torch.Tensor
    ldos: torch.Tensor
    dos: torch.Tensor
    number: torch.Tensor
    energy: torch.Tensor
    volume: float
    n_atoms: int
    n_electrons: float
    level: float


class GridData:
    """Snapshots with the fingerprints of all grid points, which are computed once and kept in an HDF5 file.

    An interrupted run continues with the fingerprints in the file.

    Parameters
    ----------
    snapshots : Snapshots
    cache : path
        HDF5 file of fingerprints; it belongs to one descriptor.
    zero : EnergyZero
        Zero of energy of the head that is trained or tested.
    """

    @formerly_positional("progress", "zero")
    def __init__(
        self,
        snapshots: Snapshots,
        descriptor: Bispectrum,
        cache: str | PathLike,
        *,
        progress: bool = True,
        zero: EnergyZero = EnergyZero(),
    ) -> None:
        self.snapshots, self.cache, self.zero = snapshots, Path(cache), zero
        self._kept: dict[int, GridItem] = {}
        self._bytes = 0
        self._keys = [snapshots.identity(k) for k in range(len(snapshots))]

        def compute(k):
            snapshot = snapshots[k]
            return fingerprints(descriptor, snapshot.atoms, snapshot.shape)

        self._stored = ArrayCache(cache, descriptor)
        self._stored.fill(self._keys, compute, progress=progress, title="fingerprints")

    def __len__(self):
        return len(self.snapshots)

    def __getitem__(self, k):
        if k in self._kept:
            return self._kept[k]
        item = self._read(k)
        size = 4 * (item.features.numel() + item.ldos.numel())
        if self._bytes + size < MEMORY:
            self._kept[k], self._bytes = item, self._bytes + size
        return item

    def _read(self, k):
        snapshot = self.snapshots[k]
        features = self._stored[self._keys[k]]
        points = torch.arange(len(features)) if snapshot.points is None else torch.as_tensor(snapshot.points).long()
        counts = self.snapshots.attributes["valence_electrons"]
        n_electrons = float(sum(counts[symbol] for symbol in snapshot.atoms.get_chemical_symbols()))
        energies, volume = self.snapshots.energies, snapshot.atoms.get_volume()
        level = self.zero.level(snapshot.atoms.get_chemical_symbols(), volume)
        ldos, dos = (relative(energies, spectra, level) for spectra in (snapshot.ldos, snapshot.dos))
        mu = fermi.fermi_level(energies, dos, n_electrons, snapshot.temperature)
        weights = fermi.integration_weights(energies, mu, snapshot.temperature)
        ldos, dos, number, energy = (torch.as_tensor(a, dtype=torch.float32) for a in (ldos, dos, *weights[:2]))
        return GridItem(features, points, ldos, dos, number, energy, volume, len(snapshot.atoms), n_electrons, level)


def relative(energies: np.ndarray, spectra: np.ndarray, level: float) -> np.ndarray:
    """Spectra [..., S] shifted by ``level``, on the same grid ``energies`` [S].

    Value k of the result is the spectrum at ``energies[k] + level``, by cubic splines; beyond the grid it is the value at
    the end of the grid.
    """
    if level == 0:
        return spectra
    return CubicSpline(energies, spectra, axis=-1)(np.clip(energies + level, energies[0], energies[-1]))


@torch.no_grad()
def fingerprints(descriptor, atoms, shape, dtype=torch.float32):
    """Fingerprints [G1 G2 G3, F] of all grid points in C order, computed in float64."""
    system = System.from_atoms(atoms, torch.float64)
    features = torch.empty(int(np.prod(shape)), descriptor.n_features, dtype=dtype)
    for chunk in descriptor.grid_chunks(system, shape):
        features[chunk.indices] = descriptor.of_chunk(system, chunk).to(dtype)
    return features
