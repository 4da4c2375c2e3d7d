"""Labeled structures in the HDF5 format of this package.

::

    attribute ase_mlelec                JSON: description of the data set, and format_version
    count, name, group [frames]         number of atoms, and texts
    cell [frames, 3, 3], pbc [frames, 3], positions [atoms, 3], numbers [atoms]
    energies [S]                        eV, where there are spectra on a known grid
    labels/NAME                         values of all frames, or of all their atoms, in order
    has/NAME [frames]                   whether each frame has the label, where some lack it (since format 2)
"""

import warnings
from os import PathLike

import numpy as np
from ase import Atoms

from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.data.hdf5 import FRAMES, PACKED, created, opened
from ase_mlelec.io.hdf5 import AGAIN, read_array, subgroup
from ase_mlelec.quantities import LABELS, data_labels


def write_hdf5(path: str | PathLike, frames: Frames) -> None:
    """Write a data set, compressed and atomically. Frames may lack labels that other frames have.

    Raises
    ------
    ValueError
        For a data set without labels, and for labels that are unknown, not finite, or of a wrong shape.
    """
    if not frames.counts:
        raise ValueError(
            f"{path}: got {len(frames)} frames without labels, need at least one with energy, forces or "
            "spectra; label them first"
        )
    frames.check()
    with created(path, FRAMES, frames.attributes) as file:
        file["count"] = [len(frame.atoms) for frame in frames]
        file["name"] = [frame.name for frame in frames]
        file["group"] = [frame.group for frame in frames]
        for key in ("cell", "pbc"):
            file.create_dataset(key, data=[np.asarray(getattr(frame.atoms, key)) for frame in frames], **PACKED)
        for key in ("positions", "numbers"):
            file.create_dataset(key, data=np.concatenate([getattr(f.atoms, key) for f in frames]), **PACKED)
        if frames.energies is not None:
            file["energies"] = np.asarray(frames.energies, dtype=float)
        for name, count in frames.counts.items():
            values = [np.asarray(frame.labels[name]) for frame in frames if name in frame.labels]
            data = np.concatenate(values) if LABELS[name].of_atoms else np.array(values)
            # spectra are smooth and large: rounding to single precision is far below the errors of the labels
            kind = np.float32 if LABELS[name].on_grid else np.float64
            file.create_dataset(f"labels/{name}", data=data.astype(kind), **PACKED)
            if count < len(frames):
                file[f"has/{name}"] = [name in frame.labels for frame in frames]


def read_hdf5(path: str | PathLike) -> Frames:
    """Read a data set written by ``write_hdf5``.

    Raises
    ------
    ValueError
        For truncated, damaged, foreign or newer files.
    """
    with opened(path, FRAMES) as (file, attributes):
        counts, columns = _structures(path, file)
        energies = read_array(file, "energies", (None,)) if "energies" in file else None
        labels = _labels(path, file, counts, energies)
        names, groups = (read_array(file, key, counts.shape, str) for key in ("name", "group"))
        ends = np.cumsum(counts)
        frames = [
            Frame(
                Atoms(
                    columns["numbers"][end - count : end],
                    columns["positions"][end - count : end],
                    cell=columns["cell"][i],
                    pbc=columns["pbc"][i],
                ),
                labels[i],
                names[i],
                groups[i],
            )
            for i, (end, count) in enumerate(zip(ends, counts))
        ]
    return Frames(frames, energies, attributes)


def _structures(path, file):
    """Numbers of atoms [frames], and dict of numbers, positions, cell and pbc."""
    counts = read_array(file, "count", (None,), int)
    n_frames = len(counts)
    columns = {"numbers": read_array(file, "numbers", (None,), int)}
    n_atoms = len(columns["numbers"])
    if not ((counts >= 0) & (counts <= n_atoms)).all() or counts.sum() != n_atoms:
        raise ValueError(f"{path}: count claims other numbers of atoms than the {n_atoms} that there are; {AGAIN}")
    if not ((columns["numbers"] >= 0) & (columns["numbers"] <= 118)).all():
        raise ValueError(f"{path}: numbers holds some that are no atomic numbers; {AGAIN}")
    columns["positions"] = read_array(file, "positions", (n_atoms, 3))
    columns["cell"] = read_array(file, "cell", (n_frames, 3, 3))
    columns["pbc"] = read_array(file, "pbc", (n_frames, 3), bool)
    return counts, columns


def _labels(path, file, counts, energies):
    """Labels of every frame, list of dict."""
    labels = [{} for _ in counts]
    group = subgroup(file, "labels")
    unknown = sorted(set(group) - data_labels().keys())
    if unknown:
        warnings.warn(f"{path}: the labels {', '.join(unknown)} are not known and not read", stacklevel=5)
    masks = subgroup(file, "has") if "has" in file else {}
    for name in group:
        if name in unknown:
            continue
        has = read_array(masks, name, counts.shape, bool) if name in masks else np.ones(len(counts), dtype=bool)
        chosen = np.flatnonzero(has)
        sizes = {"N": int(counts[chosen].sum()), "S": None if energies is None else len(energies), "3": 3}
        per_atom, shape = LABELS[name].of_atoms, LABELS[name].shape
        axes = shape if per_atom else f"F{shape}"
        values = read_array(group, name, tuple((sizes | {"F": len(chosen)})[axis] for axis in axes))
        rows = np.split(values, np.cumsum(counts[chosen])[:-1]) if per_atom else values
        for i, row in zip(chosen, rows):
            labels[i][name] = row
    return labels
