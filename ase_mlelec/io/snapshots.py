"""Snapshots: structures with their local density of states on a grid, in HDF5 that is read piece by piece.

A snapshot with all its grid points is large (8,000 points x 171 energies for 4 atoms), so files may keep the LDOS of a
random choice of points; the DOS, which is the integral over all of them, and the density are always complete.
"""
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms

from ase_mlelec.io.atomic import replacing

FORMAT_VERSION = 1
LEVELS = 65535          # the LDOS is stored in steps of max/65535, and what is negative as zero


@dataclass(frozen=True)
class Snapshot:
    """One structure with its LDOS on the grid (g1/G1, g2/G2, g3/G3) of its cell.

    shape : (G1, G2, G3)
    temperature : float, K, of the electrons
    ldos : array [P, S], 1/(eV Å^3), at the grid points ``points`` [P] (flat indices in C order; None: at all of them)
    dos : array [S], states/eV, of the whole cell
    density : array [G1, G2, G3], e/Å^3, or None
    energy : float, eV, the free energy A of the calculation, or None; forces [N, 3] eV/Å, stress [3, 3] eV/Å^3, or None
    fermi_level : float, eV, or None
    group : what the snapshot is for, e.g. "train"
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
            raise ValueError(f"{here}: got an LDOS of shape {np.shape(self.ldos)}, need {n_points} points x "
                             f"{len(self.dos)} energies; flatten the grid in C order")
        if self.density is not None and np.shape(self.density) != tuple(self.shape):
            raise ValueError(f"{here}: got a density of shape {np.shape(self.density)}, need {tuple(self.shape)}; "
                             "give it on the grid of the LDOS")
        if self.points is not None and not (n_points and 0 <= np.min(self.points) and np.max(self.points) < whole):
            raise ValueError(f"{here}: got points that are none or outside of the grid, need flat indices from 0 to "
                             f"{whole - 1}; correct them")
        if not (np.isfinite(self.ldos).all() and np.isfinite(self.dos).all()):
            raise ValueError(f"{here}: got NaN or infinity in LDOS or DOS, need finite numbers; check the calculation")


OPTIONAL = ("density", "energy", "forces", "stress", "fermi_level", "points")


def write_snapshots(path, snapshots, energies, attributes):
    """Write an HDF5 file of snapshots (an iterable, taken one by one), compressed, atomically.

    energies : array [S], eV, of all spectra
    attributes : dict of JSON types: valence_electrons, by symbol; xc, see ase_mlelec.physics.xc; grid_spacing_A; and
        where there are such: core_charges, see ase_mlelec.physics.core, dos_width_eV, energy_reference, settings

    Raises ValueError for a snapshot on other energies.
    """
    packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["ase_mlelec_snapshots"] = json.dumps({**attributes, "format_version": FORMAT_VERSION})
        file["energies"] = np.asarray(energies, dtype=float)
        for k, snapshot in enumerate(snapshots):
            if len(snapshot.dos) != len(energies):
                raise ValueError(f"snapshot '{snapshot.name}': got {len(snapshot.dos)} energies, need the "
                                 f"{len(energies)} of the file; write it to a file of its own")
            group = file.create_group(f"{k:05d}")
            group.attrs.update(name=snapshot.name, group=snapshot.group, temperature=snapshot.temperature,
                               shape=snapshot.shape)
            for key in ("numbers", "positions", "cell", "pbc"):
                group[key] = np.asarray(getattr(snapshot.atoms, key))
            group["dos"] = np.asarray(snapshot.dos, dtype=float)
            scale = max(float(np.max(snapshot.ldos)), 0.0) / LEVELS or 1.0
            steps = np.rint(np.clip(snapshot.ldos, 0, None) / scale).astype(np.uint16)
            group.create_dataset("ldos", data=steps, **packed).attrs["scale"] = scale
            for key in OPTIONAL:
                value = getattr(snapshot, key)
                if value is not None:
                    kind = {"density": np.float32, "points": np.int32}.get(key, float)
                    group.create_dataset(key, data=np.asarray(value, dtype=kind), **(packed if np.ndim(value) else {}))


def is_snapshots(path):
    """True for an HDF5 file of snapshots."""
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        return "ase_mlelec_snapshots" in file.attrs


class Snapshots:
    """The snapshots of a file, read when they are asked for; a selection of them is the same kind of object.

    energies : array [S], eV; attributes : dict; groups : list of str, what every snapshot is for

    Raises ValueError for truncated, foreign or newer files.
    """

    def __init__(self, path):
        self.path = Path(path)
        try:
            with h5py.File(self.path) as file:
                if "ase_mlelec_snapshots" not in file.attrs:
                    raise ValueError(f"{path}: not a file of snapshots; write it with write_snapshots or convert "
                                     "MALA's with 'mlelec convert'")
                self.attributes = json.loads(file.attrs["ase_mlelec_snapshots"])
                self.energies = file["energies"][()]
                self._keys = sorted(key for key in file if key != "energies")
                self.groups = [str(file[key].attrs["group"]) for key in self._keys]
        except (OSError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: missing, truncated or not an HDF5 file of snapshots ({error}); "
                             "write or copy it again") from None
        if self.attributes.pop("format_version", FORMAT_VERSION) > FORMAT_VERSION:
            raise ValueError(f"{path} is newer than this version reads; update ase-mlelec")

    def select(self, *groups):
        """The snapshots of these groups."""
        return self.take([k for k, group in enumerate(self.groups) if group in groups])

    def take(self, indices):
        """The snapshots of these places."""
        chosen = object.__new__(Snapshots)
        chosen.__dict__ = self.__dict__ | {name: [getattr(self, name)[k] for k in indices]
                                           for name in ("_keys", "groups")}
        return chosen

    def __len__(self):
        return len(self._keys)

    def __getitem__(self, k):
        with h5py.File(self.path) as file:
            group = file[self._keys[k]]
            atoms = Atoms(group["numbers"][()], group["positions"][()], cell=group["cell"][()], pbc=group["pbc"][()])
            ldos = group["ldos"][()] * np.float32(group["ldos"].attrs["scale"])
            optional = {name: group[name][()] for name in OPTIONAL if name in group}
            return Snapshot(atoms, tuple(int(n) for n in group.attrs["shape"]), float(group.attrs["temperature"]), ldos,
                            group["dos"][()], name=str(group.attrs["name"]), group=str(group.attrs["group"]),
                            **optional)

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def identity(self, k):
        """str, a hash of the structure and the grid of one snapshot."""
        with h5py.File(self.path) as file:
            group = file[self._keys[k]]
            arrays = [group[name][()] for name in ("numbers", "positions", "cell")] + [group.attrs["shape"]]
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]

    def fingerprint(self):
        """str, a hash of structures and DOS, for the provenance in a model file."""
        digest = hashlib.sha256(self.energies.tobytes())
        with h5py.File(self.path) as file:
            for key in self._keys:
                for name in ("numbers", "positions", "cell", "dos"):
                    digest.update(np.ascontiguousarray(file[key][name][()]).tobytes())
        return digest.hexdigest()[:16]
