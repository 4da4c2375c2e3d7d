"""Labelled structures from ase.Atoms and back, and from all files that ASE reads."""

import re
from collections.abc import Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.io.extxyz import key_val_str_to_dict
from ase.io.formats import UnknownFileTypeError, filetype, open_with_compression
from ase.stress import full_3x3_to_voigt_6_stress

from ase_mlelec.checks import check_finite, printable
from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.data.keys import GROUP, STRUCTURE, check_keys, check_used, remedy, warn_of_unread
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.elements import element_of
from ase_mlelec.io.fortran import fortran_floats
from ase_mlelec.io.ulm import check_claims
from ase_mlelec.quantities import LABELS

READABLE = (
    "readable are our .h5, deepmd npy folders, pw.x's output and .save folders, and files with energies or "
    "other labels that ASE reads, such as extxyz, traj, OUTCAR or vasprun.xml"
)
MARK = "mlelec:"  # before keys of extxyz files, so that ASE leaves them as they are
OWN = ("Lattice", "Properties", "pbc")  # keys that ASE makes the structure of, which others write in any case
SPECIES_COLUMN = "mlelec_labels"  # the column of the species, which are labels such as Fe1 in files of other programs
LONGEST_LINE = 1 << 24
VOIGT = [[0, 5, 4], [5, 1, 3], [4, 3, 2]]  # of six numbers, in ASE's order xx, yy, zz, yz, xz, xy
ASYMMETRY = 1e-3  # of a tensor that is symmetric, relative to its largest entry


def read_labeled(path: Path, *, keys: dict[str, str] | None = None, found: set | None = None) -> Frames:
    """Frames of a file that ASE reads, see ``from_images``.

    Parameters
    ----------
    found : set
        For one of several files: takes up the ``keys`` that this one has, and none are missed.

    Raises
    ------
    ValueError
        With the name of the file, for whatever ASE cannot read, and where no labels are found.
    """
    images = read_images(path)
    keys = check_keys(keys or {})
    frames, used, unread = _frames(images, path.stem, keys, str(path))
    if found is None:
        check_used(path, keys, used, unread)
    else:
        found.update(used)
    if not frames.counts:
        seen = {key: value for atoms in images for key, value in contents_of(atoms).items() if key not in STRUCTURE}
        raise ValueError(
            f"{path}: no energies, forces or spectra in it under names that are read (such as "
            f"energy, forces, stress); it has {', '.join(seen) or 'structures alone'}; "
            + (remedy(seen) or "write labels with a SinglePointCalculator")
        )
    warn_of_unread(path, keys, unread)
    return frames


def read_images(path: str | PathLike) -> list[Atoms]:
    """List of ase.Atoms of a file that ASE reads; of an extxyz file with all its keys as they are in ``info``.

    Raises
    ------
    ValueError
        With the name of the file, for whatever ASE cannot read.
    """
    try:
        options: dict[str, Any] = {}
        kind = filetype(str(path))
        if kind == "traj":
            check_claims(path)
        elif kind == "extxyz":
            _check_lines(path)
            options["properties_parser"] = _parse_comment
        images: Any = read(str(path), ":", do_not_split_by_at_sign=True, **options)
    except UnknownFileTypeError as error:
        raise ValueError(f"{path}: ASE knows no such format ({printable(error)}); {READABLE}") from None
    except Exception as error:  # ASE's readers raise whatever their parsing ran into
        cause = printable(error) or "no cause given"
        raise ValueError(
            f"{path}: ASE cannot read it ({type(error).__name__}: {cause}); the file is damaged, cut off "
            f"or of another format: {READABLE}"
        ) from None
    for i, atoms in enumerate(images):
        atoms.info = {key.removeprefix(MARK): value for key, value in atoms.info.items()}
        try:
            _name_species(atoms)
        except ValueError as error:
            raise ValueError(f"{path}: frame {i}: {error}") from None
    return images


def _name_species(atoms):
    """Give atoms whose species were read as labels their elements, unless there were atomic numbers as well."""
    labels = atoms.arrays.pop(SPECIES_COLUMN, None)
    if labels is None or atoms.numbers.any():
        return
    atoms.symbols = [element_of(label) for label in labels]
    if atoms.calc is not None:  # it remembers the structure that its results are of
        atoms.calc.atoms.symbols = atoms.symbols


def _check_lines(path):
    """Refuse an extxyz file that claims more atoms than it has lines for, which ASE would go on to look for, and one
    with an empty line between two frames, where ASE stops reading."""
    with open_with_compression(str(path)) as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if not line.strip():
                if any(part.strip() for part in iter(lambda: file.readline(LONGEST_LINE), "")):
                    raise ValueError(f"line {number} is empty, need the number of atoms of the next frame")
                return
            count, start = int(line), number
            if count < 1:
                raise ValueError(f"line {number} claims {count} atoms, need at least one")
            while number <= start + count:
                line = file.readline(LONGEST_LINE)
                if not line or len(line) == LONGEST_LINE:
                    raise ValueError(
                        f"line {start} claims {count} atoms, but line {number + 1} is "
                        + ("too long" if line else "missing")
                    )
                number += 1
            while _next_vector(file):  # of ADF's cells
                number += 1


def _next_vector(file):
    """Whether the next line is a cell vector of ADF, which is left behind; another one is not."""
    place = file.tell()
    if file.readline(LONGEST_LINE).lstrip().startswith("VEC"):
        return True
    file.seek(place)
    return False


def _parse_comment(line):
    """dict of an extxyz file's second line, with keys that ASE does not take for its own.

    ASE makes a calculator of some keys, whatever their values are, wants nine numbers for a stress, and symbols for
    species.
    """
    for key in OWN:
        if not re.search(rf"(^|\s){key}\s*=", line):
            line = re.sub(rf"(^|\s){key}(\s*=)", rf"\1{key}\2", line, count=1, flags=re.IGNORECASE)
    marked = re.sub(r"(^|\s)(stress|virial)(\s*=)", rf"\1{MARK}\2\3", line)
    found = {
        key if key in OWN or key.startswith(MARK) else MARK + key: value
        for key, value in key_val_str_to_dict(marked).items()
    }
    columns = str(found.get("Properties", "species:S:1:pos:R:3"))
    return {**found, "Properties": re.sub(r"(^|:)species(?=:S:1(:|$))", rf"\1{SPECIES_COLUMN}", columns)}


@formerly_positional("name", "keys")
def from_images(images: Iterable[Atoms], *, name: str = "", keys: dict[str, str] | None = None) -> Frames:
    """Frames of ase.Atoms.

    Labels are looked for in the results of the calculator, ``info`` and ``arrays``: energy (the free energy where there
    is one, as forces are its gradient), forces, stress or virial = -stress x volume, dipole, polarizability, dos, and
    by atoms atomic_dipole, atomic_polarizability and ados, in ASE's units. A stress, virial or polarizability has nine
    numbers, or six in the order xx, yy, zz, yz, xz, xy. Besides, ``info`` may hold dos_energies [S] eV, name and group.

    Parameters
    ----------
    keys : dict
        Label (or stress or group) -> the key that it has instead, e.g. {"energy": "REF_energy"}.

    Raises
    ------
    ValueError
        For numbers that are not finite, shapes that do not fit, a stress that is not that of the virial beside it, and
        keys that no image has.

    Notes
    -----
    What looks like a label and is not read is named in a warning.
    """
    keys = check_keys(keys or {})
    frames, used, unread = _frames(list(images), name, keys, name or "images")
    check_used(name or "images", keys, used, unread)
    warn_of_unread(name or "images", keys, unread)
    return frames


def _frames(images, name, keys, source):
    """(Frames, set of the keys that are read, dict of the others, key -> list of values)"""
    grids = [
        _numbers(f"{source}: dos_energies", atoms.info["dos_energies"], "S")
        for atoms in images
        if "dos_energies" in atoms.info
    ]
    if any(len(grid) != len(grids[0]) or not np.allclose(grid, grids[0], atol=1e-6) for grid in grids):
        raise ValueError(f"{source}: the images have different dos_energies; bring them to one grid first")
    frames, used, unread = [], set(), {}
    for i, atoms in enumerate(images):
        place = f"{source}: frame {i}"
        check_finite(place, "one of the positions", atoms.positions)
        check_finite(place, "the cell", atoms.cell.array)
        contents = contents_of(atoms)
        labels, taken = _labels(atoms, contents, keys, place)
        for key in contents.keys() - taken - STRUCTURE:
            unread.setdefault(key, []).append(contents[key])
        used |= taken
        frames.append(
            Frame(
                Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc),
                labels,
                str(atoms.info.get("name", f"{name}-{i}")),
                str(atoms.info.get(keys.get(GROUP, GROUP), "")),
            )
        )
    frames = Frames(frames, grids[0] if grids else None)
    try:
        frames.check()
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return frames, used, unread


def contents_of(atoms):
    """dict of everything that an image has beside its structure; results of its calculator come before the rest."""
    return {
        **{key: value for key, value in atoms.arrays.items() if key not in ("numbers", "positions")},
        **atoms.info,
        **_results(atoms),
    }


def _results(atoms):
    """dict of a calculator's results, of the structure as it is; constraints are no part of the physics."""
    if atoms.calc is None:
        return {}
    if isinstance(atoms.calc, SinglePointCalculator):  # it only remembers, and for one structure
        found = {key: value for key, value in atoms.calc.results.items() if value is not None}
        return {f"{key} of another structure": "" for key in found} if atoms.calc.check_state(atoms) else found
    found = {}
    known = {
        "energy": atoms.get_potential_energy,
        "free_energy": lambda: atoms.get_potential_energy(force_consistent=True),
        "forces": lambda: atoms.get_forces(apply_constraint=False),
        "stress": lambda: atoms.get_stress(apply_constraint=False),
    }
    others = {row.ase for row in LABELS.values() if row.ase} - known.keys()
    for name, get in (known | {name: partial(atoms.calc.get_property, name, atoms) for name in others}).items():
        try:
            found[name] = get()
        except (PropertyNotImplementedError, ValueError):  # ASE's two ways to say: not from this calculator
            continue
    return found


def _labels(atoms, contents, keys, place):
    """(labels of one image, set of the keys that they came from)"""
    found, taken = {}, {keys[GROUP]} & contents.keys() if GROUP in keys else set()
    lower = {key.lower(): key for key in reversed(contents)} | {key: key for key in contents}
    for label, row in LABELS.items():
        if label in keys:
            chosen = [keys[label]] if keys[label] in contents else []
        elif label in ("stress", "virial") and keys.keys() & {"stress", "virial"}:
            continue  # the one that is named counts
        else:
            chosen = [lower[key] for key in row.keys if key in lower]
        if chosen:
            found[label] = _numbers(f"{place}, {chosen[0]}", contents[chosen[0]], row.shape)
            # of the free energy and the energy without entropy the first is what forces are the gradient of
            taken |= set(chosen) if label == "energy" else {chosen[0]}
    if "stress" in found:
        stress = _symmetric(f"{place}, stress", found.pop("stress"), 1e-4)
        if atoms.cell.rank < 3:
            taken -= {keys.get("stress"), lower.get("stress")}
        else:
            virial = -stress * atoms.get_volume()
            if "virial" in found and abs(virial - found["virial"]).max() > 1e-2 + 1e-3 * abs(virial).max():
                raise ValueError(
                    f"{place}: its virial is not -stress x volume, one of them has another unit or sign; "
                    "take the wrong one out of the file"
                )
            found.setdefault("virial", virial)
    if "virial" in found:
        found["virial"] = _symmetric(f"{place}, virial", found["virial"], 1e-2)
    return found, taken


def _numbers(place, value, axes):
    """Array of the shape that ``axes`` (see ase_mlelec.quantities) mean, from numbers that may be written in other forms."""
    array = np.array("a dict") if isinstance(value, dict) else np.asarray(_unpacked(value))
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{place}: got '{printable(value, 60)}', need numbers alone; take out units and text")
    array = check_finite(place, "one of the values", array.astype(float))
    if axes == "" and array.size == 1:
        return float(array.reshape(()))
    if axes == "S":
        return array.reshape(-1) if array.ndim == 0 else array
    if axes == "33" and array.shape in ((3, 3), (9,), (6,)):
        return array[VOIGT] if array.size == 6 else array.reshape(3, 3)
    if axes == "33":
        raise ValueError(
            f"{place}: got an array of shape {array.shape}, need 9 numbers, or 6 in the order xx, yy, zz, "
            "yz, xz, xy; correct it"
        )
    if axes == "N33" and array.ndim == 2 and array.shape[1] == 9:
        return array.reshape(-1, 3, 3)
    return array


def _unpacked(value):
    """The numbers of a text in the other forms of extxyz files, [1, 2], [[1, 2], [3, 4]] and 1.5D+01."""
    try:
        return fortran_floats(re.sub(r"[\[\],]", " ", value)) if isinstance(value, str) and value.strip() else value
    except ValueError:
        return value


def _symmetric(place, tensor, floor):
    """The tensor, symmetric up to the last digits; one that is far from it is not what it is called."""
    if abs(tensor - tensor.T).max() > floor + ASYMMETRY * abs(tensor).max():
        raise ValueError(f"{place}: {tensor.tolist()} is not symmetric; check the order of the numbers")
    return (tensor + tensor.T) / 2


def to_images(frames: Frames) -> list[Atoms]:
    """List of ase.Atoms that carry the labels where ``from_images`` looks for them."""
    return [_to_atoms(frame, frames.energies) for frame in frames]


def _to_atoms(frame, energies):
    atoms, labels = frame.atoms.copy(), frame.labels
    atoms.info.update(name=frame.name, group=frame.group)
    if energies is not None:
        atoms.info["dos_energies"] = np.array(energies)
    results = {LABELS[name].ase: value for name, value in labels.items() if LABELS[name].ase}
    for name in (name for name in labels if not LABELS[name].ase and name != "virial"):
        value = np.array(labels[name])
        if LABELS[name].of_atoms:
            atoms.arrays[name] = value.reshape(len(atoms), -1)  # files have columns
        else:
            atoms.info[name] = value
    if "energy" in labels:
        results["free_energy"] = labels["energy"]
    if "virial" in labels and atoms.cell.rank == 3:
        results["stress"] = full_3x3_to_voigt_6_stress(-np.asarray(labels["virial"]) / atoms.get_volume())
    elif "virial" in labels:
        atoms.info["virial"] = np.array(labels["virial"])
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
