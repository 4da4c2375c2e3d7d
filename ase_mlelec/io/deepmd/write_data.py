"""Data written as deepmd-kit's folders: type.raw, type_map.raw and, in set.000, one array of all frames per label."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_mlelec.atomic_write import replacing_folder
from ase_mlelec.quantities import LABELS


def write_data(
    path: str | PathLike,
    frames: Sequence[tuple[Atoms, dict]],
    *,
    groups: Sequence[str] | None = None,
    mixed: bool = False,
) -> dict[str, int]:
    """Write deepmd data: a folder with a system for all frames of the same atoms, boundary conditions and labels.

    Parameters
    ----------
    path : str or Path
        Name of a new folder.
    frames : sequence of (Atoms, labels)
        As ``read_data`` returns them.
    groups : sequence of str, optional
        Group of every frame; the systems of a group are in a folder of its name.
    mixed : bool
        Whether frames of the same number of atoms are one system, in which every frame has its own types
        (``real_atom_types.npy``); deepmd-kit wants this for descriptors without types, not for ``se_e2_a``.

    Returns
    -------
    dict of int
        Number of frames by system, a path relative to ``path``.

    Raises
    ------
    ValueError
        For a folder that exists, labels that deepmd-kit does not have, and structures that repeat in some directions.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path}: is there already; give the name of a new folder")
    foreign = sorted({name for _, labels in frames for name in labels if not LABELS[name].deepmd})
    if foreign:
        raise ValueError(f"{path}: deepmd-kit has no {', no '.join(foreign)}; leave the label out")
    for k, (atoms, _) in enumerate(frames):
        if atoms.pbc.any() != atoms.pbc.all() or (atoms.pbc.any() and atoms.cell.rank < 3):
            raise ValueError(
                f"{path}: frame {k} repeats in the directions {atoms.pbc.tolist()}, deepmd-kit's data in all or in none; "
                "give it a cell with vacuum and pbc = True"
            )
    systems = _systems(frames, groups or [""] * len(frames), mixed)
    type_map = [s for _, s in sorted({(z, s) for atoms, _ in frames for z, s in zip(atoms.numbers, atoms.symbols)})]
    with replacing_folder(path) as partial:
        for name, chosen in systems.items():
            _write_system(partial / name, [frames[k] for k in chosen], type_map, mixed)
    return {name: len(chosen) for name, chosen in systems.items()}


def _systems(frames, groups, mixed):
    """Indices of the frames of each system, by the folder of the system."""
    alike: dict[tuple, list[int]] = {}
    for k, ((atoms, labels), group) in enumerate(zip(frames, groups, strict=True)):
        widths = tuple(sorted((name, np.shape(values)[-1:]) for name, values in labels.items() if LABELS[name].on_grid))
        kind = len(atoms) if mixed else tuple(atoms.numbers)
        alike.setdefault((group, kind, bool(atoms.pbc.any()), tuple(sorted(labels)), widths), []).append(k)
    named: dict[str, list[int]] = {}
    for (group, *_), chosen in alike.items():
        first = frames[chosen[0]][0]
        stem = f"{len(first)}_atoms" if mixed else first.get_chemical_formula()
        folder = "".join(c if c.isalnum() or c in "-_" else "_" for c in group)
        name = f"{folder}/{stem}" if folder else stem
        names = (name if n == 0 else f"{name}_{n}" for n in range(len(alike) + 1))
        named[next(free for free in names if free not in named)] = chosen
    return named


def _write_system(folder, frames, type_map, mixed):
    """Files of one system, whose frames have the same labels and the same number of atoms."""
    data = folder / "set.000"
    data.mkdir(parents=True)
    types = np.array([[type_map.index(symbol) for symbol in atoms.symbols] for atoms, _ in frames])
    (folder / "type.raw").write_text("".join(f"{t}\n" for t in (0 * types[0] if mixed else types[0])))
    (folder / "type_map.raw").write_text("".join(f"{symbol}\n" for symbol in type_map))
    arrays = {"coord": [atoms.positions for atoms, _ in frames]}
    if frames[0][0].pbc.any():
        arrays["box"] = [atoms.cell.array for atoms, _ in frames]
    else:
        (folder / "nopbc").touch()
    for name in frames[0][1]:
        arrays[LABELS[name].deepmd[0]] = [labels[name] for _, labels in frames]
    for stem, values in arrays.items():
        np.save(data / f"{stem}.npy", np.array(values, dtype=np.float64).reshape(len(frames), -1), allow_pickle=False)
    if mixed:
        np.save(data / "real_atom_types.npy", types.astype(np.int32), allow_pickle=False)
