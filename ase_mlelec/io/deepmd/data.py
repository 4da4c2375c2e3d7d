"""deepmd-kit's data: folders with type.raw and, in set.000, set.001 ..., one array of all frames per quantity."""

import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms

from ase_mlelec.checks import check_finite, printable
from ase_mlelec.io.deepmd.hdf5_data import unpack
from ase_mlelec.io.deepmd.notes import Notes
from ase_mlelec.io.npy import read_npy
from ase_mlelec.io.text import element_of
from ase_mlelec.quantities import LABELS

GEOMETRY = {"coord", "box", "real_atom_types"}
# inputs on which labels depend in addition to the structure: electronic temperatures, fields, spins, charges
INPUTS = ("fparam", "aparam", "spin", "charge_spin", "efield")
LONGEST = 1e6  # Å, of a box
ROUNDED_PLACE, ROUNDED_ENERGY = 1e-4, 1e-3  # Å, eV/atom, by which the type of the numbers may round them
DEEPEST = 3  # levels of folders below the given folder


def read_data(path: str | PathLike) -> list[tuple[Atoms, dict]]:
    """Read deepmd data: a system (a folder with type.raw and ``set.*/``), or all systems below a folder or in an HDF5 file.

    Returns
    -------
    list of (Atoms, labels)
        labels is a dict of arrays with energy in eV, forces [N, 3] eV/Å, virial [3, 3] eV, made symmetric, ados [N, S],
        dos [S] states/eV and the others as they are in the files. A ``dipole.npy`` holds the sum of the atomic vectors,
        not a dipole in e Å, and is called summed_dipole here. A ``nopbc`` file means that the box is ignored. Atomic files
        with the atoms of one type alone are filled up with zeros. Mixed systems, whose ``real_atom_types.npy`` gives
        every frame its own types, are read; their atoms of type -1 are left out. The older text files, coord.raw and so
        on beside type.raw, are read where there is no set.

    Raises
    ------
    ValueError
        For missing, damaged or mis-shaped files.

    Notes
    -----
    Names in type_map.raw are symbols, or begin with one (see element_of). Files that are not read are named in a
    warning. Inputs beside the structure (fparam.npy, aparam.npy, spin.npy ...) are no part of what is returned: the
    same in all frames they are named in a warning, others are refused, as the labels depend on them.
    """
    path = Path(path)
    if path.is_file():
        return _read_file(path)
    notes = Notes()
    frames = [frame for folder in _systems(path, notes) for frame in _read_system(folder, notes)]
    lengths = {labels[name].shape[-1] for _, labels in frames for name in labels if LABELS[name].on_grid}
    if len(lengths) > 1:
        raise ValueError(
            f"{path}: got spectra of {' and '.join(map(str, sorted(lengths)))} energies, need one energy "
            "grid; read the folders with different grids one by one"
        )
    for message in notes.messages(path):
        warnings.warn(message, stacklevel=2)
    return frames


def _read_file(path):
    """The data of an HDF5 file, which are read as those of folders; messages name the file."""
    with TemporaryDirectory() as folder:
        unpack(path, Path(folder))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = read_data(folder)
            except ValueError as error:
                raise ValueError(str(error).replace(folder, str(path))) from None
    for warning in caught:
        warnings.warn(str(warning.message).replace(folder, str(path)), stacklevel=3)
    return found


def has_systems(path: str | PathLike) -> bool:
    """Whether a folder is a system of deepmd-kit, or has one below it."""
    return _is_system(Path(path)) or bool(_below(Path(path)))


def _is_system(path):
    return (path / "type.raw").exists() or any(path.glob("set.*")) or (path / "coord.raw").exists()


def _below(path):
    return sorted(file.parent for depth in range(1, DEEPEST + 1) for file in path.glob("*/" * depth + "type.raw"))


def _systems(path, notes):
    """Folders with a type.raw: ``path`` itself, or folders below it."""
    if not path.exists():
        raise ValueError(f"{path}: no such folder")
    found = _below(path)
    if _is_system(path):
        notes.unread |= {f"{folder.relative_to(path)}/" for folder in found}
        return [path]
    if not found:
        raise ValueError(f"{path}: no type.raw; give a deepmd npy system folder")
    return found


@dataclass(frozen=True)
class _System:
    """A folder: its atoms' types [N], the symbols of all types (None where unknown), whether its boxes repeat."""

    path: Path
    types: np.ndarray
    symbols: list
    periodic: bool


def _read_system(path, notes):
    if not (path / "type.raw").exists():
        raise ValueError(f"{path}: no type.raw; give a deepmd npy system folder")
    if not (path / "type_map.raw").exists():
        raise ValueError(f"{path}: no type_map.raw; write one symbol per line so that types have a meaning")
    types = _integers(path / "type.raw", [_number(path / "type.raw", word) for word in _words(path / "type.raw")])
    if not len(types):
        raise ValueError(f"{path / 'type.raw'}: no atoms; write the type of every atom, one per line")
    names = _words(path / "type_map.raw")
    system = _System(path, types, [_element(name) for name in names], not (path / "nopbc").exists())
    sets = sorted(folder for folder in path.glob("set.*") if folder.is_dir())
    texts = {file.stem: file for file in path.glob("*.raw")} if path.is_dir() else {}
    if not sets and "coord" not in texts:
        raise ValueError(f"{path}: no set.* folder; give the folder that holds type.raw and set.000")
    sources = [{file.stem: file for file in folder.glob("*.npy")} for folder in sets] or [texts]
    mixed = [folder for folder, files in zip(sets, sources) if "real_atom_types" in files]
    if 0 < len(mixed) < len(sets):
        raise ValueError(
            f"{path}: {mixed[0].name} has real_atom_types.npy, another set has not; the frames of the "
            "other have no types: add the file there"
        )
    found = [_read_set(system, folder, files, names, notes) for folder, files in zip(sets or [path], sources)]
    _note_unread(path, sources, texts, notes)
    return [frame for frames in found for frame in frames]


def _note_unread(path, sources, texts, notes):
    stems = set().union(*sources)
    known = GEOMETRY | _labels().keys() | set(INPUTS) | {"type", "type_map"}
    notes.unread |= {f"{stem}{file.suffix}" for files in sources for stem, file in files.items() if stem not in known}
    notes.unread |= {file.name for file in path.glob("*.npy")}  # beside the sets, where deepmd-kit has no files
    notes.unread |= {file.name for stem, file in texts.items() if stem not in stems | {"type", "type_map"}}


def _element(name):
    try:
        return element_of(name)
    except ValueError:
        return None


def _check_types(system, names, types, file, notes):
    """Refuse types that have no element; note the names from which an element was guessed."""
    used = np.unique(types[types >= 0])
    if (
        (types.min() < 0 and file.suffix == ".raw")
        or used.max(initial=-1) >= len(names)
        or not all(system.symbols[t] for t in used)
    ):
        raise ValueError(
            f"{system.path}: type_map.raw {printable(names[:20])} does not name the chemical species of all types; "
            f"correct it, or {file.name}"
        )
    for t in used:
        rest = names[t][len(system.symbols[t]) :]
        if rest[:1].isalpha():  # not Si1 or Si_bulk, but Ow, or WC, which may be no tungsten
            notes.guessed[names[t]] = system.symbols[t]


# one set -----------------------------------------------------------------------------------------------------------


def _read_set(system, folder, files, names, notes):
    """list of (Atoms, labels) of the arrays that lie in ``files``, a dict of paths by stem."""
    if "coord" not in files:
        raise ValueError(f"{folder}: no coord.npy; the set is incomplete")
    n_atoms = len(system.types)
    positions = _read(files["coord"])
    n_frames = len(positions) if positions.ndim > 1 and positions.size != n_atoms * 3 else 1
    if positions.size == 0:
        raise ValueError(f"{files['coord']}: no frames; remove the set or write it again")
    if positions.size != n_frames * n_atoms * 3:
        raise ValueError(
            f"{files['coord']}: shape {positions.shape} does not fit any number of frames of "
            f"{n_atoms * 3} numbers; check it against type.raw"
        )
    positions = positions.reshape(n_frames, n_atoms, 3)
    types = _types_of_frames(system, files, n_frames, names, notes)
    boxes = _boxes(system, folder, files, n_frames)
    columns = {}
    for stem, label in _labels().items():
        if stem in files and label.name in columns:
            notes.unread.add(files[stem].name)
        elif stem in files:
            values = _label(files[stem], label, n_frames, types)
            columns[label.name] = notes.symmetric(files[stem], values) if label.name == "virial" else values
    notes.add_rounding(files["coord"], positions, ROUNDED_PLACE, "Å")
    if "energy" in files:
        notes.add_rounding(files["energy"], columns["energy"], ROUNDED_ENERGY * n_atoms, "eV")
    for stem in INPUTS:
        if stem in files:
            values = _shaped(files[stem], _read(files[stem]), n_frames, (-1,), f"{n_frames} frames")
            notes.add_input(files[stem], values, per_atom=stem not in ("fparam", "charge_spin"))
    labels = [{name: values[i] for name, values in columns.items()} for i in range(n_frames)]
    for each in labels if n_atoms > 1 and "virial" in columns else ():
        if not each["virial"].any():  # what stands where none was calculated
            del each["virial"]
            notes.zeros += 1
    return [_frame(system, *each) for each in zip(types, positions, boxes, labels)]


def _frame(system, types, positions, box, labels):
    """(Atoms, labels) without the atoms of type -1, which fill up the frames of a mixed system."""
    real = types >= 0
    atoms = Atoms([system.symbols[t] for t in types[real]], positions[real], cell=box, pbc=system.periodic)
    return atoms, {name: values[real] if LABELS[name].of_atoms else values for name, values in labels.items()}


def _types_of_frames(system, files, n_frames, names, notes):
    """Types of all atoms [n_frames, N]; -1 for places that are empty in a mixed system."""
    if "real_atom_types" not in files:
        _check_types(system, names, system.types, system.path / "type.raw", notes)
        return np.tile(system.types, (n_frames, 1))
    file = files["real_atom_types"]
    n_atoms = len(system.types)
    types = _integers(file, _shaped(file, _read(file), n_frames, (n_atoms,), f"{n_frames} frames of {n_atoms} atoms"))
    if types.min() < -1 or (types < 0).all(axis=1).any():
        raise ValueError(f"{file}: types below -1, or a frame without atoms; write it again")
    _check_types(system, names, types, file, notes)
    return types


def _boxes(system, folder, files, n_frames):
    if not system.periodic:
        return np.zeros((n_frames, 3, 3))
    if "box" not in files:
        raise ValueError(f"{folder}: no box.npy; add it, or an empty file 'nopbc' beside type.raw")
    boxes = _shaped(files["box"], _read(files["box"]), n_frames, (3, 3), f"{n_frames} frames of 9 numbers")
    if np.abs(boxes).max(initial=0) > LONGEST:
        raise ValueError(
            f"{files['box']}: got a box of {np.abs(boxes).max():g} Å, need at most {LONGEST:g}; the file "
            "is damaged: write or copy it again"
        )
    lengths = np.linalg.norm(boxes, axis=2).prod(axis=1)
    flat = np.flatnonzero(np.abs(np.linalg.det(boxes)) <= 1e-6 * lengths)
    if len(flat):
        raise ValueError(
            f"{files['box']}: the box of frame {flat[0] + 1} has no volume; correct it, or add an empty "
            "file 'nopbc' beside type.raw where nothing repeats"
        )
    return boxes


def _labels():
    """dict, name of a file -> the Label that it holds"""
    return {stem: label for label in LABELS.values() for stem in label.deepmd}


def _label(file, label, n_frames, types):
    """array [frames, ...] of a label in a file"""
    array, n_atoms = _read(file), types.shape[1]
    shape = (-1,) if label.on_grid else (3,) * label.shape.count("3")
    width = None if label.on_grid else 3 ** len(shape)
    if file.stem.startswith("atom") and width and array.ndim and array.size != n_frames * n_atoms * width:
        # the atoms of one type alone; only their number tells which
        sizes = {kind: n_frames * (types[0] == kind).sum() * width for kind in np.unique(types[types >= 0])}
        kinds = [kind for kind, size in sizes.items() if array.size == size]
        if len(kinds) == 1 and (types == types[0]).all():
            full = np.zeros((n_frames, n_atoms, width))
            full[:, types[0] == kinds[0]] = array.reshape(n_frames, -1, width)
            array = full
    needed = f"{n_frames} frames of {n_atoms} atoms" + (f" and {width} components" if width else "")
    return _shaped(file, array, n_frames, ((n_atoms,) if label.of_atoms else ()) + shape, needed)


def _shaped(file, array, n_frames, shape, needed):
    """``array`` as [n_frames, ``*shape]``, of which the last may be -1; a single frame may come without its axis.

    Parameters
    ----------
    needed : str
        What the shape is for, in the message of the ValueError.
    """
    width = int(np.prod([n for n in shape if n >= 0]))
    free = -1 in shape
    fits = array.size and not array.size % (n_frames * width) if free else array.size == n_frames * width
    flat = array.ndim == 1 and not free
    if not fits or not (n_frames == 1 or flat or array.shape[0] == n_frames):
        raise ValueError(f"{file}: shape {array.shape} does not fit {needed}; check it against type.raw and coord.npy")
    return array.reshape(n_frames, *shape)


# files -------------------------------------------------------------------------------------------------------------


def _read(file):
    """The numbers of a .npy file, or of a text with the numbers of one frame in a line."""
    if file.suffix == ".npy":
        return read_npy(file)
    rows = [[_number(file, word) for word in line.split()] for line in _lines(file)]
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError(
            f"{file}: the lines have different numbers of columns, or there are none; need one line for "
            "each frame: correct it"
        )
    return np.array(rows)


def _lines(file):
    try:
        return [line.partition("#")[0] for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as text ({printable(error)}); write it again") from None


def _words(file):
    return [word for line in _lines(file) for word in line.split()]


def _number(file, word):
    try:
        return float(check_finite(file, f"'{printable(word, 20)}'", float(word)))
    except ValueError:
        raise ValueError(f"{file}: got '{printable(word, 20)}', need finite numbers; correct it") from None


def _integers(file, values):
    values = np.asarray(values, dtype=float)
    if (values != np.round(values)).any() or (np.abs(values) > 1e6).any():
        raise ValueError(
            f"{file}: got {values[values != np.round(values)][:1]}, need whole numbers, the types of the "
            "atoms; correct it"
        )
    return values.astype(int)
