"""deepmd-kit's data in one HDF5 file, whose groups correspond to folders; dpdata writes such files."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import h5py
import numpy as np

from ase_mlelec.io.hdf5 import AGAIN, check_heaps, holds, one_line, read_array, subgroup

DEEPEST = 3  # levels of groups below the file


def is_hdf5_data(path: str | PathLike) -> bool:
    """True for an HDF5 file with data of deepmd-kit."""

    def has_types(file):
        groups = (item for item in list(file.values())[:100] if isinstance(item, h5py.Group))
        return "type.raw" in file or any("type.raw" in group for group in groups)

    return holds(path, has_types)


def unpack(path: str | PathLike, folder: Path) -> None:
    """Write the systems of an HDF5 file as folders of npy files.

    Raises
    ------
    ValueError
        For damaged and other files.
    """
    try:
        check_heaps(path)
        with h5py.File(path) as file:
            systems = list(_systems(file, DEEPEST))
            for system in systems:
                if ".." in system.name.split("/"):  # a name like others in HDF5
                    raise ValueError(f"{path}: got a group with the name '..', which no folder has; rename it")
                _unpack_system(system, folder / system.name.lstrip("/"))
    except Exception as error:  # a damaged file can raise nearly anything within HDF5, h5py and NumPy
        if isinstance(error, ValueError) and str(error).startswith(f"{path}"):
            raise
        raise ValueError(f"{path}: no data of deepmd-kit can be read from it ({one_line(error)}); {AGAIN}") from None
    if not systems:
        raise ValueError(
            f"{path}: no type.raw in its groups; give data of deepmd-kit, or a folder with type.raw and set.000"
        )


def _systems(group: h5py.Group, depth: int) -> Iterator[h5py.Group]:
    """Groups with types of atoms."""
    if "type.raw" in group:
        yield group
        return
    for name in group if depth else ():
        if isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Group):
            yield from _systems(group[name], depth - 1)


def _unpack_system(group, folder):
    names = [*group]
    folder.mkdir(parents=True, exist_ok=True)
    types = read_array(group, "type.raw", (None,), int)
    (folder / "type.raw").write_text("\n".join(map(str, types.tolist())))
    if "type_map.raw" in names:
        symbols = read_array(group, "type_map.raw", (None,), str)
        (folder / "type_map.raw").write_text("\n".join(symbols), encoding="utf-8")
    if "nopbc" in names and read_array(group, "nopbc", (), bool):
        (folder / "nopbc").touch()
    for name in names:
        if not name.startswith("set."):
            continue
        arrays = subgroup(group, name)
        (folder / name).mkdir()
        for each in arrays:
            if each.endswith(".npy"):
                shape = getattr(arrays[each], "shape", None) or ()
                values = read_array(arrays, each, (None,) * len(shape))
                np.save(folder / name / each, values.astype(arrays[each].dtype))
