"""Forces of snapshots, and derivatives of the fingerprints of grid points with respect to atomic displacements."""

import hashlib
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from ase import Atoms

from ase_mlelec.data.array_cache import ArrayCache
from ase_mlelec.data.grid_points import fingerprints
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.descriptors import Bispectrum

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
