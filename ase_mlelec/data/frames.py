"""Labeled structures: read extxyz, deepmd-kit's data, runs of pw.x and our HDF5; write HDF5. Nothing here needs torch.

Our format::

    attribute ase_mlelec                JSON: description of the data set, and format_version
    count, name, group [frames]         number of atoms, and texts
    kind [frames]                       texts, where there are kinds
    cell [frames, 3, 3], pbc [frames, 3], positions [atoms, 3], numbers [atoms]
    energies [S]                        eV, where there are spectra on a known grid
    labels/NAME                         values of all frames, or of all their atoms, in order
    has/NAME [frames]                   whether each frame has the label, where some lack it (since format 2)
    weight, weights/NAME [frames]       configuration weights, and those of single labels, unless 1 (since format 3)
"""

import warnings
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError

from ase_mlelec.checks import check_atoms
from ase_mlelec.data.data_set import Frame, Frames, join
from ase_mlelec.data.hdf5 import FRAMES, PACKED, created, opened
from ase_mlelec.data.images import READABLE, from_images, read_labeled, to_images
from ase_mlelec.data.keys import check_used
from ase_mlelec.data.placeholders import drop_zeros
from ase_mlelec.data.runs.cp2k import read_cp2k, without_companions
from ase_mlelec.data.runs.find import once, other_data, part_of_run
from ase_mlelec.data.runs.read import has_spectra, read_runs, runs_of
from ase_mlelec.data.runs.repeats import without_repeats
from ase_mlelec.data.runs.spectra import Spectra
from ase_mlelec.data.runs.steps import is_run, read_run
from ase_mlelec.data.runs.vasp import is_vasp
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.cp2k import is_trajectory
from ase_mlelec.io.deepmd.data import has_systems, read_data
from ase_mlelec.io.deepmd.hdf5_data import is_hdf5_data
from ase_mlelec.io.hdf5 import AGAIN, read_array, subgroup
from ase_mlelec.quantities import LABELS, data_labels

__all__ = [
    "Frame",
    "Frames",
    "Spectra",
    "checked",
    "from_images",
    "has_spectra",
    "is_run",
    "join",
    "read_all",
    "read_frames",
    "read_hdf5",
    "read_run",
    "to_images",
    "write_hdf5",
]
FOR_ASE = "which are for files that ASE reads; leave them out"
FILES = {".xyz", ".extxyz", ".traj", ".db", ".h5"}  # endings of data sets
LOGS = {".out", ".log"}
FOLDERS = (
    "a folder of a run needs prefix.save of pw.x, vasprun.xml, OUTCAR or vaspout.h5: look whether the run has ended well, "
    "or name files such as {}; a folder of deepmd-kit needs type.raw"
)


@formerly_positional("keys", "found")
def read_frames(
    path: str | PathLike,
    *,
    keys: dict[str, str] | None = None,
    found: set | None = None,
    spectra: Spectra | None = None,
) -> Frames:
    """Read labeled structures from a file or folder of any known format.

    The formats are HDF5 of this package, deepmd npy folders and HDF5, pw.x runs (text output, XML or ``prefix.save``), runs
    of pw.x and projwfc.x (see ``ase_mlelec.data.runs.read.read_runs``), and files with labels that ASE reads.

    Parameters
    ----------
    keys : dict
        Names of labels in files that ASE reads, see ``from_images``.
    found : set, optional
        Set to which the ``keys`` that the file has are added. Keys that the file lacks are then no error.
    spectra : Spectra, optional
        How densities of states are made of bands that are projected on atoms.

    Raises
    ------
    ValueError
        For a file that does not exist, is damaged, or has no labels.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if not has_keys(path):
        if keys:
            raise ValueError(f"{path}: got names of labels ({', '.join(keys.values())}), {FOR_ASE}")
        if is_trajectory(path):
            return read_cp2k(path)
        if has_spectra(path):
            return read_runs([path], spectra=spectra)
        if is_run(path):
            return read_run(path)
        if runs_of(path):
            return read_runs([path], spectra=spectra)
        if path.is_dir() and (kind := other_data(path)):
            raise ValueError(f"{path}: a folder with {kind}; convert it first: mlelec convert {path} --out data.h5")
        if path.is_dir() and not has_systems(path):
            files, logs = _likely_data(path)
            hint = (
                f"give its files themselves, such as {files[0]}" if files else FOLDERS.format(*logs[:1] or ["pw.out"])
            )
            raise ValueError(f"{path}: a folder without data that can be read; {hint}")
        return read_hdf5(path) if path.is_file() and not is_hdf5_data(path) else _read_deepmd(path)
    if not path.is_file():  # opening a pipe would block
        raise ValueError(f"{path}: no file; {READABLE}")
    if part := part_of_run(path):
        raise ValueError(f"{path}: {part}")
    return read_labeled(path, keys=keys, found=found)


def _likely_data(folder):
    """Files of a folder, or else of those in it, by their names: data sets, and outputs of runs."""
    for pattern in "*", "*/*":
        files = sorted(each for each in folder.glob(pattern) if each.is_file())
        data, logs = ([each for each in files if {*each.suffixes} & kinds] for kinds in (FILES, LOGS))
        if data or logs:
            logs = sorted(logs, key=lambda each: not is_run(each))[:1]  # an output of pw.x before one of projwfc.x
            return sorted(data, key=lambda each: "-pos-" not in each.name), logs  # of CP2K's files that of positions
    return [], []


def has_keys(path: str | PathLike) -> bool:
    """Whether the format of a data set has free names of labels, so that ``keys`` apply."""
    path = Path(path)
    return not (
        path.is_dir()
        or path.suffix in (".h5", ".hdf5")
        or (path.is_file() and (is_hdf5_data(path) or is_run(path) or is_vasp(path) or has_spectra(path)))
        or is_trajectory(path)
    )


@formerly_positional("keys", "check")
def read_all(
    paths: Iterable[str | PathLike],
    *,
    keys: dict[str, str] | None = None,
    check: Callable = lambda frames, path: frames,
    spectra: Spectra | None = None,
) -> Frames:
    """Read several data sets as one.

    ``keys`` apply to files that ASE reads; ``check(frames, path)`` is called for each data set and returns its Frames.
    All runs with bands projected on atoms are read together, on one energy grid, see
    ``ase_mlelec.data.runs.read.read_runs`` for them and for ``spectra``.

    Raises
    ------
    ValueError
        For errors of ``read_frames`` and ``join``, and where no file has the ``keys``.
    """
    paths = without_companions(once(list(paths)))
    here = ", ".join(map(str, paths))
    if keys and not any(map(has_keys, paths)):
        raise ValueError(f"{here}: got names of labels ({', '.join(keys.values())}), {FOR_ASE}")
    found: set[str] = set()
    runs = [path for path in paths if not has_keys(path) and has_spectra(path)]
    others = [path for path in paths if path not in runs]
    parts = [check(read_frames(path, keys=keys if has_keys(path) else None, found=found), path) for path in others]
    if runs:
        parts.append(
            check(read_runs(runs, spectra=spectra, others=parts), str(runs[0]) if len(runs) == 1 else f"{runs[0]} ...")
        )
    _tell_of_other_data(paths)
    frames = join(without_repeats(parts, [*([path] for path in others), runs][: len(parts)]))
    if paths and not len(frames):
        raise ValueError(f"{here}: got no structures in it, or none that can be used; give a data set with some")
    check_used(here, keys or {}, found, {})
    return frames


def _tell_of_other_data(paths):
    """Warn of what folders of runs hold beside energies and is not read here."""
    found: dict[str, list[str]] = {}
    for path in paths:
        if Path(path).is_dir() and (kind := other_data(path)):
            found.setdefault(kind, []).append(str(path))
    for kind, folders in found.items():
        warnings.warn(
            f"{', '.join(folders)}: with {kind}, not read here; a data set of it: mlelec convert {' '.join(folders)} "
            "--out data.h5",
            stacklevel=3,
        )


def checked(frames: Frames, path: str | PathLike) -> Frames:
    """The frames of a file; ValueError for a structure that no model takes, such as one without volume."""
    for k, frame in enumerate(frames):
        try:
            check_atoms(frame.atoms)
        except InputError as error:
            raise ValueError(f"{path}: frame {k} ({frame.name or 'unnamed'}): {error}") from None
    return frames


def _read_deepmd(path):
    frames = Frames([Frame(atoms, labels, f"{path.name}-{i}") for i, (atoms, labels) in enumerate(read_data(path))])
    if notes := drop_zeros(frames):
        warnings.warn(f"{path}: {'. '.join(notes)}", stacklevel=3)
    return frames


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
    weights = _weights(frames)
    # former versions, which know no weights of frames, read all files without them
    with created(path, FRAMES if weights else FRAMES._replace(version=2), frames.attributes) as file:
        file["count"] = [len(frame.atoms) for frame in frames]
        file["name"] = [frame.name for frame in frames]
        file["group"] = [frame.group for frame in frames]
        if any(frames.kinds):
            file["kind"] = frames.kinds
        for key, values in weights.items():
            file[key] = values
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


def _weights(frames):
    """Weights [frames] by name in a file, dict without those that are 1 for all frames."""
    columns = {"weight": [frame.weight for frame in frames]}
    for name in frames.counts:
        columns[f"weights/{name}"] = [frame.label_weights.get(name, 1.0) for frame in frames]
    return {key: np.array(column, dtype=float) for key, column in columns.items() if {*column} != {1.0}}


def read_hdf5(path: str | PathLike) -> Frames:
    """Read a data set written by ``write_hdf5``.

    Raises
    ------
    ValueError
        For truncated, damaged, foreign or newer files.
    """
    with opened(path, FRAMES) as (file, attributes):
        counts, numbers, positions, cells, pbcs = _structures(path, file)
        energies = read_array(file, "energies", (None,)) if "energies" in file else None
        labels = _labels(path, file, counts, energies)
        names, groups = (read_array(file, key, counts.shape, str) for key in ("name", "group"))
        kinds = read_array(file, "kind", counts.shape, str) if "kind" in file else [""] * len(counts)
        weights, of_labels = _read_weights(path, file, labels)
        ends = np.cumsum(counts)[:-1]
        parts = zip(np.split(numbers, ends), np.split(positions, ends), cells, pbcs)
        images = [Atoms(z, r, cell=cell, pbc=pbc) for z, r, cell, pbc in parts]
    columns = images, labels, names, groups, weights, kinds, of_labels
    return Frames([Frame(*each) for each in zip(*columns, strict=True)], energies, attributes)


def _read_weights(path, file, labels):
    """Configuration weights of all frames, list of float, and of their single labels, list of dict."""
    shape = (len(labels),)
    group = subgroup(file, "weights") if "weights" in file else {}
    columns = {name: read_array(group, name, shape) for name in group if name in data_labels()}
    own = read_array(file, "weight", shape) if "weight" in file else np.ones(shape)
    for values in (own, *columns.values()):
        if len(values) and not 0 <= values.min():
            raise ValueError(f"{path}: got the weight {values.min():g}, need none below 0; {AGAIN}")
    of_labels = [
        {name: float(column[i]) for name, column in columns.items() if column[i] != 1 and name in has}
        for i, has in enumerate(labels)
    ]
    return own.tolist(), of_labels


def _structures(path, file):
    """Numbers of atoms [frames]; atomic numbers [atoms], positions [atoms, 3], cell [frames, 3, 3], pbc [frames, 3]."""
    counts, numbers = (read_array(file, name, (None,), int) for name in ("count", "numbers"))
    n_frames, n_atoms = len(counts), len(numbers)
    if not ((counts >= 0) & (counts <= n_atoms)).all() or counts.sum() != n_atoms:
        raise ValueError(f"{path}: count claims other numbers of atoms than the {n_atoms} that there are; {AGAIN}")
    if not ((numbers >= 0) & (numbers <= 118)).all():
        raise ValueError(f"{path}: numbers holds some that are no atomic numbers; {AGAIN}")
    positions, cells = read_array(file, "positions", (n_atoms, 3)), read_array(file, "cell", (n_frames, 3, 3))
    return counts, numbers, positions, cells, read_array(file, "pbc", (n_frames, 3), bool)


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
