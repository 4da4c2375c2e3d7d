"""Snapshots: structures with their local density of states on a grid, in HDF5 files that are read piece by piece.

A snapshot with all its grid points is large (8,000 points x 171 energies for 4 atoms). A file may therefore keep the LDOS
of a random choice of points. The DOS, which is the integral over all points, and the density are always complete.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.checks import check_finite
from ase_mlelec.data import electrons
from ase_mlelec.data.data_set import check_grids, hash_of
from ase_mlelec.data.hdf5 import PACKED, SNAPSHOTS, STRUCTURE, StoredDataSet, created, is_of, read_atoms, write_atoms
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.hdf5 import number_attribute, read_array, text_attribute

FAIR_SAMPLE = 100  # random grid points whose mean LDOS equals the mean over all points to a few per cent
LEVELS = 65535  # the LDOS is stored in steps of max/65535; negative values become zero


@dataclass(frozen=True)
class Snapshot:
    """One structure with its LDOS on the grid (g1/G1, g2/G2, g3/G3) of its cell.

    Attributes
    ----------
    shape : (G1, G2, G3)
    temperature : float, K
        Temperature of the electrons.
    ldos : array [P, S], 1/(eV Å^3)
        LDOS at the grid points ``points`` [P] (flat indices in C order; None: all grid points).
    dos : array [S], states/eV
        DOS of the whole cell.
    density : array [G1, G2, G3], e/Å^3, or None
    energy : float, eV
        Free energy A of the calculation, or None. Also forces [N, 3], eV/Å, and stress [3, 3], eV/Å^3, or None.
    fermi_level : float, eV, or None
    group : str
        Purpose of the snapshot, e.g. "train".
    """

    atoms: Atoms
    shape: tuple
    temperature: float
    ldos: np.ndarray
    dos: np.ndarray
    points: np.ndarray | None = None
    density: np.ndarray | None = None
    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    fermi_level: float | None = None
    name: str = ""
    group: str = ""

    def __post_init__(self):
        here, whole = f"snapshot '{self.name}'", int(np.prod(self.shape))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"{here}: got a grid {self.shape}, need three positive numbers of points; correct it")
        n_points = whole if self.points is None else len(self.points)
        if np.shape(self.ldos) != (n_points, len(self.dos)):
            raise ValueError(
                f"{here}: got an LDOS of shape {np.shape(self.ldos)}, need {n_points} points x "
                f"{len(self.dos)} energies; flatten the grid in C order"
            )
        if self.density is not None and np.shape(self.density) != tuple(self.shape):
            raise ValueError(
                f"{here}: got a density of shape {np.shape(self.density)}, need {tuple(self.shape)}; "
                "give it on the grid of the LDOS"
            )
        if self.points is not None and not (n_points and 0 <= np.min(self.points) and np.max(self.points) < whole):
            raise ValueError(
                f"{here}: got points that are none or outside of the grid, need flat indices from 0 to "
                f"{whole - 1}; correct them"
            )
        if not (np.isfinite(self.ldos).all() and np.isfinite(self.dos).all()):
            raise ValueError(f"{here}: got NaN or infinity in LDOS or DOS, need finite numbers; check the calculation")
        for name in ("temperature", "density", "energy", "forces", "stress", "fermi_level"):
            if getattr(self, name) is not None:
                check_finite(here, name, getattr(self, name))
        if not self.temperature >= 0:
            raise ValueError(f"{here}: got a temperature of {self.temperature:g} K, need 0 or more; correct it")


OPTIONAL = ("density", "energy", "forces", "stress", "fermi_level", "points")


@formerly_positional("energies", "attributes")
def write_snapshots(
    path: str | PathLike, snapshots: Iterable[Snapshot], *, energies: ArrayLike, attributes: dict
) -> None:
    """Write snapshots, taken one by one, to an HDF5 file, compressed and atomically.

    Parameters
    ----------
    energies : array [S], eV
        Energy grid of all spectra.
    attributes : dict of JSON types
        valence_electrons, by symbol; xc, see ase_mlelec.physics.xc; grid_spacing_A. Optional: core_charges, see
        ase_mlelec.physics.core_charge; dos_width_eV; energy_reference; settings.

    Raises
    ------
    ValueError
        For a snapshot on another energy grid, and for an LDOS, DOS or density with a wrong number of electrons below the
        Fermi level, as in a wrong unit.
    """
    energies = np.asarray(energies, dtype=float)
    with created(path, SNAPSHOTS, attributes) as file:
        file["energies"] = energies
        for k, snapshot in enumerate(snapshots):
            if len(snapshot.dos) != len(energies):
                raise ValueError(
                    f"snapshot '{snapshot.name}': got {len(snapshot.dos)} energies, need the "
                    f"{len(energies)} of the file; write it to a file of its own"
                )
            check_snapshot(path, snapshot, energies, attributes)
            group = file.create_group(f"{k:05d}")
            group.attrs.update({key: getattr(snapshot, key) for key in ("name", "group", "temperature", "shape")})
            write_atoms(group, snapshot.atoms)
            group["dos"] = np.asarray(snapshot.dos, dtype=float)
            scale = max(float(np.max(snapshot.ldos)), 0.0) / LEVELS or 1.0
            steps = np.rint(np.clip(snapshot.ldos, 0, None) / scale).astype(np.uint16)
            group.create_dataset("ldos", data=steps, **PACKED).attrs["scale"] = scale
            for key in OPTIONAL:
                value = getattr(snapshot, key)
                if value is not None:
                    kind = {"density": np.float32, "points": np.int32}.get(key, float)
                    group.create_dataset(key, data=np.asarray(value, dtype=kind), **(PACKED if np.ndim(value) else {}))


def check_snapshot(path: str | PathLike, snapshot: Snapshot, energies: NDArray, attributes: Mapping[str, Any]) -> None:
    """Raise ValueError where a snapshot's spectra and density do not hold the electrons of its atoms.

    The check needs ``valence_electrons`` in the file; see electrons.check_unit.
    """
    counts = attributes.get("valence_electrons") or {}
    symbols = snapshot.atoms.get_chemical_symbols()
    if not set(symbols) <= counts.keys():
        return
    n_electrons, volume = sum(counts[symbol] for symbol in symbols), snapshot.atoms.get_volume()
    here = f"{path}: snapshot '{snapshot.name}'"
    if snapshot.density is not None:
        found = float(snapshot.density.mean() * volume)
        if not n_electrons / electrons.MOST < found < n_electrons * electrons.MOST:
            raise ValueError(
                f"{here}: the density holds {found:.4g} electrons, need {n_electrons:g}; it is per Å^3 in "
                "these files: write it in this unit"
            )
    if snapshot.fermi_level is not None:
        level = float(snapshot.fermi_level), float(snapshot.temperature)
        electrons.check_unit(f"{here}, DOS", energies, snapshot.dos, *level, n_electrons)
        if snapshot.points is None or len(snapshot.points) >= FAIR_SAMPLE:
            mean = np.mean(snapshot.ldos, axis=0)
            electrons.check_unit(f"{here}, LDOS", energies, mean * volume, *level, n_electrons)


def is_snapshots(path: str | PathLike) -> bool:
    """True for an HDF5 file of snapshots."""
    return is_of(path, SNAPSHOTS)


class Snapshots(StoredDataSet):
    """Snapshots in one or more files, read on demand; a selection of snapshots has the same class.

    Attributes
    ----------
    energies : array [S], eV
    attributes : dict
    groups : list of str
        Group of every snapshot.

    Raises
    ------
    ValueError
        For missing, truncated, damaged, foreign or newer files, at once or when a snapshot is read.
    """

    kind = SNAPSHOTS
    common = ("energies",)
    hashed = (*STRUCTURE, ("dos", (None,)))

    def _read_common(self, file):
        self.energies = read_array(file, "energies", (None,))
        if len(self.energies) < 2 or not (np.diff(self.energies) > 0).all():
            raise ValueError("/energies are not 2 or more that rise")

    def _check_alike(self, other):
        check_grids([self.energies, other.energies])

    def _read(self, group):
        atoms, shape = _atoms(group), _grid(group)
        dos = read_array(group, "dos", (len(self.energies),))
        points = read_array(group, "points", (None,), int) if "points" in group else None
        n_points = math.prod(shape) if points is None else len(points)
        steps = read_array(group, "ldos", (n_points, len(self.energies)), np.uint16)
        ldos = steps * np.float32(number_attribute(group["ldos"], "scale"))
        del steps
        shapes = {"density": shape, "energy": (), "forces": (len(atoms), 3), "stress": (3, 3), "fermi_level": ()}
        optional = {name: read_array(group, name, size) for name, size in shapes.items() if name in group}
        temperature = number_attribute(group, "temperature")
        texts = {name: text_attribute(group, name) for name in ("name", "group")}
        snapshot = Snapshot(atoms, shape, temperature, ldos, dos, points, **texts, **optional)
        check_snapshot(group.file.filename, snapshot, self.energies, self.attributes)
        return snapshot

    def identity(self, k: int) -> str:
        """Hash of the structure and the grid of one snapshot."""
        with self._group(k) as group:
            atoms = read_atoms(group)
            return hash_of([atoms.numbers, atoms.positions, atoms.cell, group.attrs["shape"]])

    def n_points(self, k: int) -> int:
        """Number of grid points of one snapshot that have an LDOS."""
        with self._group(k) as group:
            return len(group["points"]) if "points" in group else math.prod(_grid(group))


def _atoms(group):
    atoms = read_atoms(group)
    if not len(atoms) or not atoms.numbers.all():
        raise ValueError(f"{group.name}/numbers are no atomic numbers from 1 to {len(chemical_symbols) - 1}")
    if not abs(np.linalg.det(atoms.cell)) > 1e-6:
        raise ValueError(f"{group.name}/cell has no volume")
    return atoms


def _grid(group):
    """Shape (G1, G2, G3) of the grid."""
    shape = np.asarray(group.attrs.get("shape", ()))
    if shape.shape != (3,) or shape.dtype.kind not in "iu" or shape.min() < 1 or shape.max() > 10**6:
        raise ValueError(f"attribute 'shape' of {group.name} is not three numbers of grid points")
    return tuple(int(n) for n in shape)
