"""Structures to evaluate, from files that ASE reads; labels do not matter here."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import InputError
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype, parse_filename

from ase_mlelec.checks import check_atoms, printable
from ase_mlelec.data.ase_readers import complete, extxyz_options, labels_to_calculator, refuse_types
from ase_mlelec.data.frames import read_hdf5
from ase_mlelec.data.hdf5 import FRAMES, is_of
from ase_mlelec.io.xyz import for_ase, is_extxyz
from ase_mlelec.shipped import SUFFIX, list_models

MODELS = {SUFFIX, ".dp"}
READABLE = "give a data set, or a file with structures that ASE reads, such as extxyz, traj, cif or POSCAR"


def structures(path: str | PathLike, *, index: int | None = None) -> Iterator[Atoms]:
    """Iterate over the structures of a file, all or the one at ``index``, unless its name ends in some: "run.traj@::10".

    Raises
    ------
    ValueError
        For a file that is missing, that ASE cannot read, or without structures, and for structures that no model can
        evaluate; the message names file and structure.
    """
    k = -1
    for k, atoms in enumerate(_images(str(path), index)):
        try:
            check_atoms(atoms)
        except InputError as error:
            raise ValueError(f"{path}: structure {k}: {error}") from None
        yield atoms
    if k < 0:
        raise ValueError(f"{path}: no structures in it, or none of this number; {READABLE}")


def structure(path: str | PathLike) -> Atoms:
    """The last structure of a file, or the one that is named, as in "run.traj@7"; errors as in ``structures``."""
    *_, last = structures(path, index=-1)
    return last


def _images(path, index):
    """Images as ASE reads them; ValueError for errors of any type, which its readers raise."""
    try:
        name, place = (path, index) if Path(path).exists() else parse_filename(path, index)
        images = _of_data_set(name, place)
        kind = "" if images is not None else "extxyz" if is_extxyz(name) else filetype(name)
        options = extxyz_options() if kind == "extxyz" else {}
        source = for_ase(name) if kind == "extxyz" else name
        images = images or iter(iread(source, place, do_not_split_by_at_sign=True, **options))
    except Exception as error:
        raise _refused(path, error) from None
    refuse_types(name, kind)
    k = -1
    while True:
        try:
            atoms = next(images)
        except StopIteration:
            return
        except Exception as error:
            raise _refused(path, error) from None
        k += 1
        try:
            complete(atoms, kind)
        except ValueError as error:
            raise ValueError(f"{path}: structure {k}: {error}") from None
        if kind == "extxyz":
            labels_to_calculator(atoms)
        yield atoms


def _of_data_set(name, index):
    """Iterator over the structures of a data set of this package; None for another file."""
    if not is_of(name, FRAMES):
        return None
    images = [frame.atoms for frame in read_hdf5(name)]
    return iter([images[index]] if isinstance(index, int) else images if index is None else images[index])


def _refused(path, error):
    if (isinstance(error, FileNotFoundError) and path in list_models()) or Path(path).suffix in MODELS:
        return ValueError(
            f"{path}: a model, need a file with structures; the model comes first, the structures behind it"
        )
    if isinstance(error, FileNotFoundError):
        return ValueError(f"{path}: no such file; check the name and the folder")
    if isinstance(error, UnknownFileTypeError):
        return ValueError(f"{path}: ASE knows no such format ({printable(error)}); {READABLE}")
    cause = printable(error) or "no cause given"
    return ValueError(
        f"{path}: ASE cannot read it ({type(error).__name__}: {cause}); it is damaged, cut off, of another format, or has "
        f"no structure of this number: {READABLE}"
    )
