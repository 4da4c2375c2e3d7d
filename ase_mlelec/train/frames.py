"""Labelled structures: read extxyz, deepmd npy folders and our HDF5; write HDF5; put them into batches."""
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from ase_mlelec.edges import connect, find_pairs
from ase_mlelec.io.deepmd import read_data
from ase_mlelec.system import System

# label -> axes: B structure, N atoms, S energies, numbers are components
SHAPES = {"energy": "", "forces": "N3", "virial": "33", "ados": "NS", "dos": "S"}


@dataclass
class Frame:
    """One structure with its labels: energy eV, forces [N, 3] eV/Å, virial [3, 3] eV (-dE/dε), ados [N, S], dos [S]."""
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
        """str, a hash of structures and labels, for the provenance in a model file."""
        digest = hashlib.sha256()
        for frame in self.frames:
            digest.update(frame.atoms.positions.tobytes())
            for name in sorted(frame.labels):
                digest.update(np.asarray(frame.labels[name], dtype=np.float32).tobytes())
        return digest.hexdigest()[:16]


def read_frames(path, index=":"):
    """Read a data set: ``.h5`` (ours), a deepmd npy folder, or any file ASE reads that carries energies and forces.

    Raises ValueError when the file holds no labels.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_dir():
        return Frames([Frame(atoms, labels, f"{path.name}-{i}") for i, (atoms, labels) in enumerate(read_data(path))])
    return read_hdf5(path) if path.suffix in (".h5", ".hdf5") else _read_ase(path, index)


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


def _read_ase(path, index):
    from ase.io import read
    images = read(path, index)
    frames = [Frame(_bare(atoms), _ase_labels(atoms), f"{path.stem}-{i}") for i, atoms in enumerate(images)]
    if not any(frame.labels for frame in frames):
        raise ValueError(f"{path}: no energies, forces or spectra in it; write them with a SinglePointCalculator")
    return Frames(frames)


def _ase_labels(atoms):
    labels = {}
    if atoms.calc is not None:
        for name, get in (("energy", lambda: atoms.get_potential_energy()), ("forces", lambda: atoms.get_forces()),
                          ("virial", lambda: -atoms.get_stress(voigt=False) * atoms.get_volume())):
            try:
                labels[name] = get()
            except (PropertyNotImplementedError, ValueError):   # ASE's two ways to say: not in the file
                continue
    if "ados" in atoms.arrays:
        labels["ados"] = atoms.arrays["ados"]
    return labels


def _bare(atoms):
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def write_hdf5(path, frames):
    """Write a data set, compressed, atomically.  Labels must be the same for all frames."""
    names = [name for name in SHAPES if name in frames.frames[0].labels]
    frames.require(*names)
    path = Path(path)
    partial = path.with_name(f".{path.name}.part")
    packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    try:
        with h5py.File(partial, "w") as file:
            file.attrs["ase_mlelec"] = json.dumps({"format_version": 1, **frames.attributes})
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
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_hdf5(path):
    """Read a data set written by ``write_hdf5``.

    Raises ValueError for truncated or foreign files.
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
    attributes.pop("format_version")
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


@dataclass(frozen=True)
class Batch:
    """Structures, their pairs within the cutoff, and labels as tensors (per-atom ones concatenated)."""
    system: System
    pairs: tuple
    labels: dict
    cutoff: float

    def strained_edges(self):
        """(strain, system, edges) with gradients with respect to positions and strain."""
        strain = torch.zeros_like(self.system.cell, requires_grad=True)
        positions = self.system.positions.detach().requires_grad_(True)
        leaf = System(positions, self.system.numbers, self.system.cell, self.system.pbc, self.system.batch)
        strained = leaf.strained(strain)
        return positions, strain, strained, connect(strained, *self.pairs, self.cutoff)

    def edges(self):
        return connect(self.system, *self.pairs, self.cutoff)


class Batches:
    """Frames as tensors with their neighbour lists built once; ``batch(indices)`` joins some of them."""

    def __init__(self, frames, cutoff, labels, dtype, device="cpu"):
        frames.require(*labels)
        self.cutoff = cutoff
        self.systems = [System.from_atoms(frame.atoms, dtype, device) for frame in frames]
        self.pairs = [find_pairs(system, cutoff) for system in self.systems]
        self.labels = [{name: torch.as_tensor(np.asarray(frame.labels[name]), dtype=dtype, device=device)
                        for name in labels} for frame in frames]

    def __len__(self):
        return len(self.systems)

    def batch(self, indices):
        systems = [self.systems[i] for i in indices]
        counts = [len(system.positions) for system in systems]
        offsets = np.cumsum([0, *counts])
        joined = System(*(torch.cat([getattr(system, name) for system in systems])
                          for name in ("positions", "numbers", "cell", "pbc")),
                        torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(
                            systems[0].positions.device))
        pairs = tuple(torch.cat([self.pairs[i][k] + (int(offset) if k < 2 else 0)
                                 for i, offset in zip(indices, offsets)]) for k in range(3))
        labels = {name: (torch.cat if SHAPES[name].startswith("N") else torch.stack)(
            [self.labels[i][name] for i in indices]) for name in self.labels[0]}
        return Batch(joined, pairs, labels, self.cutoff)

    def all_batches(self, size):
        """Iterate over all frames in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(range(start, min(start + size, len(self))))
