"""Labeled structures from ase.Atoms and back, and from files that ASE reads."""

import re
import warnings
from collections.abc import Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read
from ase.io.formats import UnknownFileTypeError, filetype
from ase.stress import full_3x3_to_voigt_6_stress

from ase_mlelec.checks import NO_PERMISSION, check_finite, printable
from ase_mlelec.data.ase_readers import complete, drop_dipole, extxyz_options, read_aenet
from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.data.keys import (
    STRESS_UNIT,
    STRESS_UNITS,
    STRUCTURE,
    check_keys,
    check_units,
    check_used,
    in_order,
    in_other_units,
    in_unit,
    remedy,
    remedy_of_stress,
    warn_of_unread,
)
from ase_mlelec.data.other_outputs import check_output
from ase_mlelec.data.placeholders import drop_zeros
from ase_mlelec.data.usual_names import SAME_ENERGY, guessed, other_energies, shares_of, texts_of, weights_of
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.aims import read_aims
from ase_mlelec.io.cp2k import refuse_trajectory
from ase_mlelec.io.cp2k_output import is_output, read_output
from ase_mlelec.io.text import fortran_floats
from ase_mlelec.io.ulm import check_claims
from ase_mlelec.io.xyz import check_lines, for_ase, is_extxyz
from ase_mlelec.quantities import LABELS

OWN_FORMATS = ("espresso-out", "vasp-out", "vasp-xml")  # of which ASE's readers take steps that are no labels
READABLE = (
    "readable are our .h5, deepmd npy folders, pw.x's output and .save folders, folders of runs of pw.x or VASP, and "
    "files with energies or other labels that ASE reads, such as extxyz, traj, OUTCAR or vasprun.xml"
)
DATABASE = ("key_value_pairs", "data")  # entries in which ASE's databases have what else belongs to a structure
VOIGT = [[0, 5, 4], [5, 1, 3], [4, 3, 2]]  # places of tensor elements in ASE's order xx, yy, zz, yz, xz, xy
ASYMMETRY = 1e-3  # largest asymmetry of a symmetric tensor, relative to its largest element


def read_labeled(path: Path, *, keys: dict[str, str] | None = None, found: set | None = None) -> Frames:
    """Read Frames from a file that ASE reads, see ``from_images``.

    Parameters
    ----------
    found : set, optional
        Set to which the ``keys`` that the file has are added. Keys that the file lacks are then no error.

    Raises
    ------
    ValueError
        For a file that ASE cannot read or that has no labels; the message names the file.
    """
    images = [read_output(path)] if is_output(path) else read_images(path)
    keys = check_keys(keys or {})
    frames, used, unread, notes = _frames(images, path.stem, keys, str(path))
    if found is None:
        check_used(path, keys, used, unread)
    else:
        found.update(used)
    if not frames.counts:
        seen = {key: value for atoms in images for key, value in contents_of(atoms).items() if key not in STRUCTURE}
        raise ValueError(
            f"{path}: no energies, forces or spectra in it under names that are read (such as "
            f"energy, forces, stress); it has {', '.join(seen) or 'structures alone'}; "
            + (remedy(seen) or in_other_units(seen) or "write labels with a SinglePointCalculator")
        )
    warn_of_unread(path, unread, notes, frames.counts)
    return frames


def read_images(path: str | PathLike) -> list[Atoms]:
    """Read a list of ase.Atoms from a file that ASE reads; ``info`` has all keys of an extxyz file, unchanged.

    Raises
    ------
    ValueError
        For a file that ASE cannot read; the message names the file.
    """
    try:
        source: Any = str(path)
        options, comment, unread = dict[str, Any](), "", ""
        kind = "extxyz" if is_extxyz(path) else filetype(str(path))
        if kind == "traj":
            check_claims(path)
        elif kind in OWN_FORMATS and str(path).endswith((".bz2", ".xz")):
            raise ValueError("compressed by bzip2 or xz, of which this format is not read: expand it, or use gzip")
        elif kind == "extxyz":
            comment, unread = check_lines(path)
            source, options = for_ase(path), extxyz_options()
        images: Any
        if kind in ("db", "json"):
            images = _rows(path, kind)
        elif kind == "aims-output":
            images = read_aims(path)
        else:
            images = read(source, ":", do_not_split_by_at_sign=True, **options)
    except PermissionError:
        raise ValueError(f"{path}: {NO_PERMISSION}") from None
    except UnknownFileTypeError as error:
        raise ValueError(f"{path}: ASE knows no such format ({printable(error)}); {READABLE}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: no text in UTF-8 (byte {error.start + 1}): give a compressed file its ending, such as .gz, and "
            "convert another encoding, such as by iconv -f LATIN1 -t UTF-8"
        ) from None
    except Exception as error:  # ASE's readers raise errors of any type
        cause = printable(error) or "no cause given"
        raise ValueError(
            f"{path}: ASE cannot read it ({type(error).__name__}: {cause}); the file is damaged, cut off "
            f"or of another format: {READABLE}"
        ) from None
    refuse_trajectory(path, comment)
    check_output(path, kind)
    if unread:
        warnings.warn(f"{path}: not read, as Properties of the comment does not name them: {unread}", stacklevel=5)
    if kind == "xsf":
        read_aenet(path, images)
    if not images:
        raise ValueError(f"{path}: no structures in it (read as {kind}); {READABLE}")
    if dropped := sum(drop_dipole(atoms, kind) for atoms in images):
        warnings.warn(
            f"{path}: the dipoles of {dropped} periodic structures are not read, as GPAW's depend on where the cell begins; "
            "polarizations of crystals need Wannier centers or Berry phases",
            stacklevel=5,
        )
    for i, atoms in enumerate(images):
        try:
            complete(atoms, kind)
        except ValueError as error:
            raise ValueError(f"{path}: frame {i}: {error}") from None
    return images


def _rows(path, kind):
    """Images of a database of ASE with what else the user stored, which ase.io.read leaves out."""
    rows = connect(str(path), type=kind, use_lock_file=False).select()
    return [row.toatoms(add_additional_information=True) for row in rows]


@formerly_positional("name", "keys")
def from_images(images: Iterable[Atoms], *, name: str = "", keys: dict[str, str] | None = None) -> Frames:
    """Make Frames from ase.Atoms.

    Labels come from the results of the calculator, ``info`` and ``arrays``, in ASE's units: energy (the free energy where
    there is one, because forces are its gradient), forces, stress or virial = -stress x volume, dipole, polarizability,
    dos, and for every atom atomic_dipole, born_charges, atomic_polarizability and ados. A stress, virial or
    polarizability has nine numbers, or six in the order xx, yy, zz, yz, xz, xy. ``info`` may also hold dos_energies [S]
    in eV, name, group (or split), kind (or config_type), and weights: config_weight of the structure,
    config_energy_weight of its energy, and so on.

    Parameters
    ----------
    keys : dict
        Keys of labels (or of stress, group, kind and weight) that replace the usual names, e.g. {"energy": "REF_energy"};
        and stress_unit, one of eV/A^3, GPa and kbar, with a minus sign for stresses that are positive under pressure;
        dipole_unit, one of e A, e bohr and debye, and polarizability_unit, A^3 or bohr^3, perhaps after a number;
        born_charges_order, "dipole, displacement" (default) or "displacement, dipole".

    Raises
    ------
    ValueError
        For numbers that are not finite, wrong shapes, a stress that contradicts the virial, and keys that no image has.

    Notes
    -----
    Where no label has its usual name, keys that alone can mean a label are read, such as REF_energy and REF_forces. A
    warning names them, and keys that look like labels but are not read.
    """
    keys = check_keys(keys or {})
    frames, used, unread, notes = _frames(list(images), name, keys, name or "images")
    check_used(name or "images", keys, used, unread)
    warn_of_unread(name or "images", unread, notes, frames.counts)
    return frames


def _frames(images, name, keys, source):
    """(Frames, set of the keys that were read, dict of the values of all other keys, list of str: what was guessed)."""
    grids = [atoms.info["dos_energies"] for atoms in images if "dos_energies" in atoms.info]
    grids = [_numbers(f"{source}: dos_energies", grid, "S") for grid in grids]
    if any(len(grid) != len(grids[0]) or not np.allclose(grid, grids[0], atol=1e-6) for grid in grids):
        raise ValueError(f"{source}: the images have different dos_energies; bring them to one grid first")
    contents_of_all = [contents_of(atoms) for atoms in images]
    names = guessed(contents_of_all, keys)
    notes = [f"read as {', '.join(f'{label}: {key}' for label, key in names.items())}"] if names else []
    keys = keys | names
    frames, used, unread, without_cell, away = [], set(), {}, 0, [0.0]
    for i, (atoms, contents) in enumerate(zip(images, contents_of_all, strict=True)):
        place = f"{source}: frame {i}"
        check_finite(place, "one of the positions", atoms.positions)
        check_finite(place, "the cell", atoms.cell.array)
        labels, of_labels = _labels(atoms, contents, keys, place)
        texts, of_texts = texts_of(contents, keys)
        weight, label_weights, of_weights = weights_of(contents, keys, place)
        taken = of_labels | of_texts | of_weights
        for key in contents.keys() - taken - STRUCTURE - shares_of(labels):
            unread.setdefault(key, []).append(contents[key])
        used |= taken
        without_cell += (
            atoms.cell.rank < 3 and "virial" not in labels and bool({"stress", keys.get("stress")} & of_labels)
        )
        away.append(_free_beyond(contents, labels, len(atoms)))
        structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        # a weight of zero marks a label that the structure lacks
        kept = {label: value for label, value in labels.items() if label_weights.get(label) != 0}
        label_weights = {label: weight for label, weight in label_weights.items() if label in kept and weight != 1}
        title = str(contents.get("name", f"{name}-{i}"))
        frames.append(Frame(structure, kept, title, weight=weight, label_weights=label_weights, **texts))
    check_units(source, unread, keys)
    if without_cell:
        notes.append(f"the stress of {without_cell} structures without a cell is not read")
    notes += drop_zeros(frames)
    if max(away) > SAME_ENERGY:
        notes.append(
            f"energy is free_energy, which is up to {max(away):.2g} eV/atom away from energy, because forces are its "
            'gradient; for the other set energy = "energy" in [data.keys]'
        )
    programs = sorted({str(getattr(atoms.calc, "name", None)) for atoms in images if atoms.calc} - {"None", "unknown"})
    if len(programs) > 1:
        notes.append(
            f"the labels are of several calculators ({', '.join(programs)}), whose energies belong together only where the "
            "method is the same; take those of one, such as by writing them to another file"
        )
    notes += [] if "energy" in keys else other_energies(contents_of_all, frames, unread)
    frames = Frames(frames, grids[0] if grids else None)
    try:
        frames.check()
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return frames, used, unread, notes


def _free_beyond(contents, labels, n_atoms):
    """Difference of free energy and energy, eV/atom, where the former is read and both are there."""
    free, other = (contents.get(key) for key in ("free_energy", "energy"))
    if any(np.asarray(each).dtype.kind not in "fiu" or np.size(each) != 1 for each in (free, other)):
        return 0.0
    free, other = (float(np.ravel(each)[0]) for each in (free, other))
    return abs(free - other) / n_atoms if labels.get("energy") == free else 0.0


def contents_of(atoms: Atoms) -> dict:
    """All contents of an image except the structure, dict by key; results of its calculator take precedence."""
    arrays = {key: value for key, value in atoms.arrays.items() if key not in ("numbers", "positions")}
    info = dict(atoms.info)
    for table in DATABASE:
        if isinstance(info.get(table), dict):
            info = info.pop(table) | info
    return arrays | info | _results(atoms)


def _results(atoms):
    """Results of a calculator for the present structure, dict by name; without the effect of constraints."""
    if atoms.calc is None:
        return {}
    if isinstance(atoms.calc, SinglePointCalculator):  # it holds results of one structure and cannot calculate
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
        except (PropertyNotImplementedError, ValueError):  # ASE has these two errors for a missing property
            continue
    return found


def _labels(atoms, contents, keys, place):
    """Labels of one image, and set of the keys from which they were read."""
    found, taken = {}, set()
    lower = {key.lower(): key for key in reversed(contents)} | {key: key for key in contents}
    for label, row in LABELS.items():
        if label in keys:
            chosen = [keys[label]] if keys[label] in contents else []
        elif label in ("stress", "virial") and keys.keys() & {"stress", "virial"}:
            continue  # the key that the user named takes precedence
        else:
            chosen = [lower[key] for key in row.keys if key in lower]
        if chosen:
            value = _numbers(f"{place}, {chosen[0]}", contents[chosen[0]], row.shape)
            found[label] = in_order(label, value, keys)
            if chosen[0] not in getattr(atoms.calc, "results", {}):
                found[label] = in_unit(label, found[label], keys)
            # forces are the gradient of the free energy, not of the energy without entropy
            taken |= set(chosen) if label == "energy" else {chosen[0]}
    if "stress" in found:
        stress = _symmetric(f"{place}, stress", found.pop("stress"), 1e-4)
        if keys.get("stress", lower.get("stress")) not in getattr(atoms.calc, "results", {}):  # these are in ASE's unit
            stress = stress * STRESS_UNITS[keys.get(STRESS_UNIT, "eV/A^3")]
        if atoms.cell.rank == 3:
            virial = -stress * atoms.get_volume()
            if "virial" in found and abs(virial - found["virial"]).max() > 1e-2 + 1e-3 * abs(virial).max():
                raise ValueError(
                    f"{place}: its virial is not -stress x volume, one of them has another unit or sign; "
                    + remedy_of_stress(virial, found["virial"], keys)
                )
            found.setdefault("virial", virial)
    if "virial" in found:
        found["virial"] = _symmetric(f"{place}, virial", found["virial"], 1e-2)
    return found, taken


def _numbers(place, value, axes):
    """Convert a value to an array of the shape of ``axes`` (see ase_mlelec.quantities)."""
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
    """Parse numbers from text in the less common forms of extxyz files: [1, 2], [[1, 2], [3, 4]] and 1.5D+01."""
    try:
        return fortran_floats(re.sub(r"[\[\],]", " ", value)) if isinstance(value, str) and value.strip() else value
    except ValueError:
        return value


def _symmetric(place, tensor, floor):
    """Symmetrize a tensor; refuse one that is far from symmetric."""
    if abs(tensor - tensor.T).max() > floor + ASYMMETRY * abs(tensor).max():
        raise ValueError(f"{place}: {tensor.tolist()} is not symmetric; check the order of the numbers")
    return (tensor + tensor.T) / 2


def to_images(frames: Frames) -> list[Atoms]:
    """Make a list of ase.Atoms with labels, the inverse of ``from_images``."""
    return [_to_atoms(frame, frames.energies) for frame in frames]


def _to_atoms(frame, energies):
    atoms, labels = frame.atoms.copy(), frame.labels
    weights = {f"config_{name}_weight": weight for name, weight in frame.label_weights.items()}
    weights |= {"config_weight": frame.weight} if frame.weight != 1 else {}
    texts = {"name": frame.name, "group": frame.group, "kind": frame.kind}
    atoms.info.update({key: text for key, text in texts.items() if text} | weights)  # extxyz has no empty texts
    if energies is not None:
        atoms.info["dos_energies"] = np.array(energies)
    results = {LABELS[name].ase: value for name, value in labels.items() if LABELS[name].ase}
    for name in (name for name in labels if not LABELS[name].ase and name != "virial"):
        value = np.array(labels[name])
        if LABELS[name].of_atoms:
            atoms.arrays[name] = value.reshape(len(atoms), -1)  # files can only store columns
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
