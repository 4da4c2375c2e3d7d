"""Grid points of snapshots with fingerprints and LDOS, read piece by piece."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import h5py
import numpy as np
import torch
from ase import Atoms
from scipy.interpolate import CubicSpline
from torch import Tensor

from ase_mlelec import processes
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.descriptors import Bispectrum, Descriptor
from ase_mlelec.physics import fermi
from ase_mlelec.physics.energy_zero import EnergyZero
from ase_mlelec.progress import Bar
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
def fingerprints(
    descriptor: Bispectrum, atoms: Atoms, shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Fingerprints [G1 G2 G3, F] of all grid points in C order, computed in float64."""
    system = System.from_atoms(atoms, torch.float64)
    features = torch.empty(int(np.prod(shape)), descriptor.n_features, dtype=dtype)
    for chunk in descriptor.grid_chunks(system, shape):
        features[chunk.indices] = descriptor.of_chunk(system, chunk).to(dtype)
    return features


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

    def __init__(self, path: str | PathLike, descriptor: Descriptor) -> None:
        self.path = Path(path)
        processes.gathered(None)  # none reads the file any more: HDF5 opens none to write that another has open
        if processes.rank() == 0:  # the first process alone writes
            self._mark(repr(descriptor.arguments()))
        processes.gathered(None)  # none reads the file before it is closed

    def _mark(self, kind):
        """Write the kind of the descriptor to the file, or compare it with the one that is there."""
        with h5py.File(self.path, "a") as file:
            if file.attrs.setdefault("descriptor", kind) != kind:
                raise ValueError(f"{self.path} holds fingerprints of another kind; remove it")

    def fill(
        self, names: Sequence[str], compute: Callable[[int], Tensor], *, progress: bool = True, title: str = "arrays"
    ) -> None:
        """Compute the arrays that the file lacks; processes that work together share them.

        Parameters
        ----------
        names : sequence of str
        compute : callable
            Function from the place of a name in ``names`` to its array.
        progress : bool
            Whether to show the progress, with this ``title``.
        """
        missing = processes.of_first([] if processes.rank() else self._missing(names))
        with Bar(total=len(missing), show=progress, desc=title, unit=" snapshots") as bar:
            while some := missing[: processes.world()]:
                missing = missing[len(some) :]
                arrays = processes.in_turn([compute(k).numpy() for k in processes.mine(some)])
                if processes.rank() == 0:
                    with h5py.File(self.path, "a") as file:
                        file.update({names[k]: array for k, array in zip(some, arrays)})
                bar.update(len(some))
        processes.gathered(None)  # the file is complete

    def _missing(self, names):
        """Places of the names that the file lacks."""
        with h5py.File(self.path) as file:
            return [k for k, name in enumerate(names) if name not in file]

    def __getitem__(self, name: str) -> Tensor:
        with h5py.File(self.path) as file:
            return torch.from_numpy(file[name][()])


COARSE = 0.6  # grid points per point of the data, along each cell vector; in aluminium it changes forces by 0.003 eV/Å
STEP = 1e-5  # Å; one-sided differences of fingerprints, with relative errors of this order
DIRECTIONS = 12  # displacements per snapshot


@dataclass(frozen=True)
class ForceItem:
    """One snapshot on a coarse grid, to first order in displacements of its atoms along M directions.

    Attributes
    ----------
    features : Tensor [P, F]
    slopes : Tensor [M, P, F], 1/Å
        Derivatives of the features along ``directions`` : Tensor [M, N, 3], orthonormal.
    wanted : Tensor [M], eV/Å
        Forces of the DFT code along ``directions``.
    """

    snapshot: object
    shape: tuple
    features: torch.Tensor
    slopes: torch.Tensor
    directions: torch.Tensor
    wanted: torch.Tensor


class ForceData:
    """Snapshots with fingerprints and their derivatives on coarse grids, which are fine enough for forces.

    The atoms of large structures are displaced along DIRECTIONS random directions, the atoms of small structures along
    all directions except translations.

    Parameters
    ----------
    snapshots : Snapshots
        Snapshots with forces; structures of one atom are left out.
    cache : path
        HDF5 file of the GridData; it belongs to one descriptor.

    Raises
    ------
    ValueError
        For snapshots without forces.
    """

    @formerly_positional("progress")
    def __init__(
        self, snapshots: Snapshots, descriptor: Bispectrum, cache: str | PathLike, *, progress: bool = True
    ) -> None:
        self.attributes = snapshots.attributes
        atoms = [snapshot.atoms for snapshot in snapshots]
        self.snapshots = snapshots.take([k for k, each in enumerate(atoms) if len(each) > 1])
        self._keys = [f"{self.snapshots.identity(k)}-forces" for k in range(len(self))]

        def compute(k):
            snapshot = self.snapshots[k]
            if snapshot.forces is None:
                raise ValueError(
                    f"{snapshots.path}: snapshot '{snapshot.name}' has no forces; write them too, or "
                    "train with force_weight = 0"
                )
            features, slopes = _first_order(descriptor, snapshot, _directions(snapshot.atoms))
            return torch.cat([features[None], slopes])

        self._stored = ArrayCache(cache, descriptor)
        self._stored.fill(self._keys, compute, progress=progress, title="derivatives")

    def __len__(self):
        return len(self.snapshots)

    def __getitem__(self, k):
        snapshot = self.snapshots[k]
        stored = self._stored[self._keys[k]]
        directions = _directions(snapshot.atoms)
        wanted = torch.einsum("mni,ni->m", directions, torch.as_tensor(snapshot.forces))
        return ForceItem(snapshot, coarse_shape(snapshot.shape), stored[0], stored[1:], directions, wanted)


def coarse_shape(shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Shape (G1, G2, G3) of the grid on which forces are integrated, from the ``shape`` of the grid of the data."""
    return tuple(max(1, round(COARSE * n)) for n in shape)


def n_directions(atoms: Atoms) -> int:
    """Number M of directions along which the atoms of a structure are displaced."""
    return min(DIRECTIONS, 3 * len(atoms) - 3)


def _directions(atoms):
    """Directions [M, N, 3] of displacement: orthonormal, without translation, reproducible for each structure."""
    seed = hashlib.sha256(np.ascontiguousarray(atoms.positions).tobytes()).digest()[:4]
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    noise = rng.normal(size=(n_directions(atoms), len(atoms), 3))
    noise -= noise.mean(axis=1, keepdims=True)
    return torch.as_tensor(np.linalg.qr(noise.reshape(len(noise), -1).T)[0].T.reshape(noise.shape).copy())


def _first_order(descriptor, snapshot, directions):
    """Fingerprints [P, F] and their derivatives [M, P, F] along the directions [M, N, 3], float32."""
    shape, moved = coarse_shape(snapshot.shape), snapshot.atoms.copy()
    start = fingerprints(descriptor, moved, shape, torch.float64)
    slopes = torch.empty(len(directions), *start.shape)
    for slope, direction in zip(slopes, directions.numpy()):
        moved.positions = snapshot.atoms.positions + STEP * direction
        slope.copy_((fingerprints(descriptor, moved, shape, torch.float64) - start) / STEP)
    return start.float(), slopes
