"""Labelled structures: read extxyz, deepmd npy folders and our HDF5; write HDF5.  Nothing here needs torch."""
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.stress import full_3x3_to_voigt_6_stress

from ase_mlelec.io.atomic import replacing

# label -> axes: N atoms, S energies, numbers are components
SHAPES = {"energy": "", "forces": "N3", "virial": "33", "ados": "NS", "dos": "S", "dipole": "3", "atomic_dipole": "N3",
          "summed_dipole": "3", "polarizability": "33", "atomic_polarizability": "N33"}
FORMAT_VERSION = 1


@dataclass
class Frame:
    """One structure with its labels: energy eV, forces [N, 3] eV/Å, virial [3, 3] eV (-dE/dε), ados [N, S] and dos [S]
    states/eV, dipole [3] e Å, polarizability [3, 3] Å^3 and its parts by atom, atomic_dipole [N, 3] Å, the displacement
    of an atom's Wannier centroid from it (zero where there is none), and summed_dipole [3] Å, its sum over the atoms.

    group : what the structure is for, e.g. "train", "validation", "test"
    """
    atoms: Atoms
    labels: dict = field(default_factory=dict)
    name: str = ""
    group: str = ""


@dataclass
class Frames:
    """A data set.

    frames : list of Frame
    energies : array [S] or None, eV; the grid of all spectra
    attributes : dict of JSON types; settings, width of the spectra and whatever describes the data
    """
    frames: list
    energies: np.ndarray | None = None
    attributes: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.frames)

    def __iter__(self):
        return iter(self.frames)

    @property
    def labels(self):
        """tuple of str, the labels that every frame has."""
        return tuple(name for name in SHAPES if self.frames and all(name in frame.labels for frame in self.frames))

    def select(self, condition):
        """The frames for which ``condition(frame)`` holds."""
        return Frames([frame for frame in self.frames if condition(frame)], self.energies, self.attributes)

    def require(self, *names):
        """Raise ValueError unless every frame has all the labels, with shapes that fit."""
        for i, frame in enumerate(self.frames):
            for name in names:
                if name not in frame.labels:
                    raise ValueError(f"frame {i} ({frame.name or 'unnamed'}) has no label '{name}', it has "
                                     f"{sorted(frame.labels)}; add it or take its term out of the loss")
                self._check_shape(i, frame, name)

    def _check_shape(self, i, frame, name):
        sizes = {"N": len(frame.atoms), "S": -1 if self.energies is None else len(self.energies), "3": 3}
        needed = tuple(sizes[axis] for axis in SHAPES[name])
        got = np.shape(frame.labels[name])
        if len(got) != len(needed) or any(n not in (g, -1) for g, n in zip(got, needed)):
            raise ValueError(f"frame {i} ({frame.name or 'unnamed'}): label '{name}' has shape {got}, needed {needed}"
                             + ("; are the energy grids of all data the same?" if "S" in SHAPES[name] else ""))
        if not np.isfinite(frame.labels[name]).all():
            raise ValueError(f"frame {i} ({frame.name or 'unnamed'}): label '{name}' holds NaN; remove the frame")

    def fingerprint(self):
        """str, a hash of structures, labels and energy grid, for the provenance in a model file."""
        digest = hashlib.sha256()
        if self.energies is not None:
            digest.update(np.asarray(self.energies, dtype=float).tobytes())
        for frame in self.frames:
            for name in ("numbers", "positions", "cell", "pbc"):
                digest.update(np.ascontiguousarray(getattr(frame.atoms, name)).tobytes())
            for name in sorted(frame.labels):
                # single precision, which is what a file keeps of spectra
                digest.update(name.encode() + np.asarray(frame.labels[name], dtype=np.float32).tobytes())
        return digest.hexdigest()[:16]


def read_frames(path):
    """Read a data set: ``.h5`` (ours), a deepmd npy folder, or any file ASE reads that carries labels.

    Raises ValueError when there is no such file or it holds no labels.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_dir():
        from ase_mlelec.io.deepmd import read_data      # imports torch
        return Frames([Frame(atoms, labels, f"{path.name}-{i}") for i, (atoms, labels) in enumerate(read_data(path))])
    if path.suffix in (".h5", ".hdf5"):
        return read_hdf5(path)
    frames = from_images(read(path, ":"), path.stem)
    if not any(frame.labels for frame in frames):
        raise ValueError(f"{path}: no energies, forces or spectra in it; write them with a SinglePointCalculator")
    return frames


def join(parts):
    """One data set of several; ValueError when their energy grids differ."""
    parts = list(parts)
    grids = [part.energies for part in parts if part.energies is not None]
    for grid in grids[1:]:
        if len(grid) != len(grids[0]) or not np.allclose(grid, grids[0], atol=1e-6):
            raise ValueError(f"energy grids differ ({grids[0][0]:g}..{grids[0][-1]:g} eV, {len(grids[0])} points and "
                             f"{grid[0]:g}..{grid[-1]:g} eV, {len(grid)} points); bring them to one grid first")
    return Frames([frame for part in parts for frame in part], grids[0] if grids else None,
                  {key: value for part in parts for key, value in part.attributes.items()})


def from_images(images, name=""):
    """Frames of ase.Atoms: energy, forces and stress from the calculator, ``arrays["ados"]``, and from ``info``
    dos_energies [S] eV, dos, name and group."""
    images = list(images)
    grids = [np.asarray(atoms.info["dos_energies"], dtype=float) for atoms in images if "dos_energies" in atoms.info]
    if any(len(grid) != len(grids[0]) or not np.allclose(grid, grids[0], atol=1e-6) for grid in grids):
        raise ValueError(f"{name}: the images have different dos_energies; bring them to one grid first")
    frames = [Frame(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc), _labels(atoms),
                    str(atoms.info.get("name", f"{name}-{i}")), str(atoms.info.get("group", "")))
              for i, atoms in enumerate(images)]
    return Frames(frames, grids[0] if grids else None)


def _labels(atoms):
    labels = {key: np.asarray(values[key], dtype=float)
              for key, values in (("ados", atoms.arrays), ("dos", atoms.info)) if key in values}
    if atoms.calc is None:
        return labels
    # the free energy is what forces are the gradient of; constraints are no part of the physics
    for name, get in (("energy", atoms.get_potential_energy),
                      ("energy", lambda: atoms.get_potential_energy(force_consistent=True)),
                      ("forces", lambda: atoms.get_forces(apply_constraint=False)),
                      ("virial", lambda: -atoms.get_stress(voigt=False, apply_constraint=False) * atoms.get_volume())):
        try:
            labels[name] = get()
        except (PropertyNotImplementedError, ValueError):   # ASE's two ways to say: not in the file
            continue
    return labels


def to_images(frames):
    """List of ase.Atoms that carry the labels of energy and DOS where ``from_images`` looks for them."""
    return [_to_atoms(frame, frames.energies) for frame in frames]


def _to_atoms(frame, energies):
    atoms, labels = frame.atoms.copy(), frame.labels
    atoms.info.update(name=frame.name, group=frame.group)
    if "ados" in labels:
        atoms.arrays["ados"] = np.array(labels["ados"])
    if "dos" in labels:
        atoms.info["dos"] = np.array(labels["dos"])
    if energies is not None:
        atoms.info["dos_energies"] = np.array(energies)
    results = {name: labels[name] for name in ("energy", "forces") if name in labels}
    if "energy" in labels:
        results["free_energy"] = labels["energy"]
    if "virial" in labels:
        results["stress"] = full_3x3_to_voigt_6_stress(-np.asarray(labels["virial"]) / atoms.get_volume())
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def write_hdf5(path, frames):
    """Write a data set, compressed, atomically.

    Raises ValueError unless all frames have the same labels, with shapes that fit.
    """
    names = [name for name in SHAPES if any(name in frame.labels for frame in frames)]
    if not names:
        raise ValueError(f"{path}: got {len(frames)} frames without labels, need at least one with energy, forces or "
                         "spectra; label them first")
    frames.require(*names)
    packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["ase_mlelec"] = json.dumps({**frames.attributes, "format_version": FORMAT_VERSION})
        file["count"] = [len(frame.atoms) for frame in frames]
        file["name"] = [frame.name for frame in frames]
        file["group"] = [frame.group for frame in frames]
        for key in ("cell", "pbc"):
            file.create_dataset(key, data=[np.asarray(getattr(frame.atoms, key)) for frame in frames], **packed)
        for key in ("positions", "numbers"):
            file.create_dataset(key, data=np.concatenate([getattr(f.atoms, key) for f in frames]), **packed)
        if frames.energies is not None:
            file["energies"] = frames.energies
        for name in names:
            values = [np.asarray(frame.labels[name]) for frame in frames]
            data = np.concatenate(values) if SHAPES[name].startswith("N") else np.array(values)
            # spectra are smooth and large: single precision is far below their label error
            kind = np.float32 if "S" in SHAPES[name] else np.float64
            file.create_dataset(f"labels/{name}", data=data.astype(kind), **packed)


def read_hdf5(path):
    """Read a data set written by ``write_hdf5``.

    Raises ValueError for truncated, foreign or newer files.
    """
    try:
        with h5py.File(path) as file:
            if "ase_mlelec" not in file.attrs:
                raise ValueError(f"{path}: an HDF5 file of another program; convert the data with 'mlelec convert'")
            attributes = json.loads(file.attrs["ase_mlelec"])
            columns = {key: file[key][()] for key in ("count", "cell", "pbc", "positions", "numbers")}
            names, groups = file["name"].asstr()[()], file["group"].asstr()[()]
            energies = file["energies"][()] if "energies" in file else None
            labels = {name: item[()].astype(float) for name, item in file["labels"].items()}
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: truncated or not an HDF5 data set ({error}); write or copy it again") from None
    version = attributes.pop("format_version")
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} has data format {version}, this version reads up to {FORMAT_VERSION}; "
                         "update ase-mlelec")
    ends = np.cumsum(columns["count"])
    frames = []
    for i, (end, count) in enumerate(zip(ends, columns["count"])):
        atoms = slice(end - count, end)
        frames.append(Frame(
            Atoms(columns["numbers"][atoms], columns["positions"][atoms], cell=columns["cell"][i],
                  pbc=columns["pbc"][i]),
            {name: values[atoms] if SHAPES[name].startswith("N") else values[i] for name, values in labels.items()},
            names[i], groups[i]))
    return Frames(frames, energies, attributes)
