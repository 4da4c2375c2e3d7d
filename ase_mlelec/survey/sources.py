"""Data of any format that the package reads, as structures with labels, and what to do with data that need conversion."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ase_mlelec.data.data_set import Frame, Frames, same_structure, temperature_of
from ase_mlelec.data.frames import checked, read_all
from ase_mlelec.data.hdf5 import FRAMES as DATA_SET
from ase_mlelec.data.hdf5 import HAMILTONIANS, SNAPSHOTS, is_of, opened
from ase_mlelec.data.runs.find import once
from ase_mlelec.quantities import LABELS

FRAMES = "labeled structures"
LDOS, HAMILTONIAN, MALA, WANNIER90 = "LDOS snapshots", "Hamiltonians", "snapshots of MALA", "Wannier90 runs"
ENDINGS = ("_hr.dat", "_tb.dat", "_hr.dat.gz", "_tb.dat.gz")


@dataclass(frozen=True)
class Source:
    """Structures and labels of data sets of one kind.

    Attributes
    ----------
    paths : list of Path
    kind : str
        FRAMES, LDOS, HAMILTONIAN, MALA or WANNIER90.
    frames : Frames
        All structures with their labels of the kinds in ase_mlelec.quantities.LABELS.
    keys : dict of str
        Names of labels that the user gave.
    notes : list of str
        What the readers had to say.
    facts : dict
        Further findings for the report, text by title.
    remedy : str
        What has to be done before a training; "" for data that can be trained on.
    hot : list of Path
        Data sets with the energies of some of the structures at other temperatures of the electrons.
    """

    paths: list
    kind: str
    frames: Frames
    keys: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    remedy: str = ""
    hot: list = field(default_factory=list)


def source_of(
    paths: Sequence[str | PathLike],
    *,
    keys: dict[str, str] | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Source:
    """Read data sets, all of one kind.

    Parameters
    ----------
    keys : dict
        Names of labels in files that ASE reads, see ase_mlelec.data.images.from_images.
    progress : callable
        Wraps the iteration over structures that are read one by one.

    Raises
    ------
    ValueError
        For data that cannot be read or have no labels, and for data of several kinds.
    """
    files = [Path(path) for path in once(paths)]
    for path in files:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
    kind = _common_kind(files)
    if keys and kind not in (FRAMES, HAMILTONIAN):
        raise ValueError(f"{files[0]}: got names of labels ({', '.join(keys.values())}) for {kind}; leave them out")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = {FRAMES: _read_frames, LDOS: _read_ldos, HAMILTONIAN: _read_hamiltonians, MALA: _read_mala}.get(
            kind, _read_wannier90
        )(files, keys or {}, progress)
    if not len(source.frames):
        raise ValueError(f"{', '.join(map(str, files))}: got no structures in it; give a data set with some")
    source.notes.extend(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught))
    return source


def _common_kind(paths):
    """The one kind of all data; Hamiltonians may have labeled structures beside them, for energies."""
    kinds = [kind_of(path) for path in paths]
    if set(kinds) == {HAMILTONIAN, FRAMES}:
        return HAMILTONIAN
    for path, kind in zip(paths, kinds, strict=True):
        if kind != kinds[0]:
            raise ValueError(f"got {paths[0]} with {kinds[0]} and {path} with {kind}; give data of one kind")
    return kinds[0]


def kind_of(path: str | PathLike) -> str:
    """Kind of the data in a file or folder, from its name and its first bytes."""
    path = Path(path)
    names = [each.name for each in path.iterdir()] if path.is_dir() else [path.name]
    if path.is_file() and path.suffix in (".h5", ".hdf5"):
        return LDOS if is_of(path, SNAPSHOTS) else HAMILTONIAN if is_of(path, HAMILTONIANS) else FRAMES
    if any(name.endswith(".info.json") for name in names):
        return MALA
    return WANNIER90 if any(name.endswith(ENDINGS) for name in names) else FRAMES


def _hot_files(paths, keys):
    """Data sets that have energies of structures of the others, by name, at other temperatures of the electrons."""
    own = [path for path in paths if path.suffix in (".h5", ".hdf5")]
    if len(own) < 2:
        return []
    temperatures = [_temperature(path) for path in own]
    others = [path for path, found in zip(own, temperatures) if found not in (None, temperatures[0])]
    if temperatures[0] is None or not others:
        return []
    first, *theirs = (
        {frame.name: frame.atoms for frame in read_all([path], keys=keys, check=checked)} for path in (own[0], *others)
    )
    return [
        path
        for path, some in zip(others, theirs)
        if all(name in first and same_structure(first[name], atoms) for name, atoms in some.items())
    ]


def _temperature(path):
    """As ``temperature_of``, without the structures, which may be many; None for another file."""
    if not is_of(path, DATA_SET):
        return None
    with opened(path, DATA_SET) as (_, attributes):
        return temperature_of(attributes)


def _read_frames(paths, keys, progress):
    hot = _hot_files(paths, keys)
    paths = [path for path in paths if path not in hot]
    frames = read_all(paths, keys=keys, check=checked)
    facts, remedy = {}, ""
    on_grid = [name for name in frames.counts if LABELS[name].on_grid]
    if on_grid and frames.energies is None:
        length = np.shape(next(frame.labels[on_grid[0]] for frame in frames if on_grid[0] in frame.labels))[-1]
        remedy = (
            f"the {length} energies of the spectra are in no file: write a data set that has them by 'mlelec convert "
            f"{' '.join(map(str, paths))} --grid FIRST LAST --out {paths[0].stem}.h5', with the first and the last "
            f"energy in eV, and run 'mlelec init {paths[0].stem}.h5'"
        )
    if hot:
        facts["hot"] = (
            f"{', '.join(path.name for path in hot)}: the same structures at other temperatures of the electrons"
        )
    return Source(paths, FRAMES, frames, keys, facts=facts, remedy=remedy, hot=hot)


def _read_ldos(paths, keys, progress):
    from ase_mlelec.data.snapshots import Snapshots

    stored = Snapshots(*paths)
    frames, points, shapes, temperatures, density = [], 0, set(), set(), 0
    for each in progress(stored):
        labels: dict[str, Any] = {name: getattr(each, name) for name in ("energy", "forces", "dos")}
        if each.stress is not None:
            labels["virial"] = -each.stress * each.atoms.get_volume()
        labels = {name: value for name, value in labels.items() if value is not None}
        frames.append(Frame(each.atoms, labels, each.name, each.group))
        points += len(each.ldos)
        shapes.add(each.shape)
        temperatures.add(each.temperature)
        density += each.density is not None
    grid = "grids of {} to {} points".format(*(f(np.prod(shape) for shape in shapes) for f in (min, max)))
    facts = {
        "LDOS": f"{points} points in all, {grid}, at {len(stored.energies)} energies "
        f"from {stored.energies[0]:g} to {stored.energies[-1]:g} eV",
        "electrons": f"{min(temperatures):g} to {max(temperatures):g} K; densities of {density} of {len(frames)} snapshots",
    }
    found = Frames(frames, stored.energies, {**stored.attributes, "densities": density, "points": points})
    return Source(paths, LDOS, found, facts=facts)


def _read_hamiltonians(paths, keys, progress):
    from ase_mlelec.data.hamiltonians import Hamiltonians

    whole = [path for path in paths if kind_of(path) == HAMILTONIAN]
    others = [path for path in paths if path not in whole]
    stored = Hamiltonians(*whole)
    frames, sizes, reach, elements = [], [], [], 0
    for each in progress(stored):
        labels = {name: getattr(each, name) for name in ("energy", "forces") if getattr(each, name) is not None}
        frames.append(Frame(each.atoms, labels, each.name, each.group))
        sizes.append(each.hamiltonian.size)
        vectors = each.hamiltonian.r_vectors @ each.hamiltonian.cell
        reach.append(float(np.linalg.norm(vectors, axis=1).max()))
        elements += each.hamiltonian.bloch.stacked.nnz
    facts = {
        "Hamiltonians": f"{min(sizes)} to {max(sizes)} functions, {elements} elements in all, lattice vectors up to "
        f"{max(reach):.1f} Å, energies relative to the vacuum level"
    }
    facts["Hamiltonians"] += f", of {len(frames)} structures"
    frames += read_all(others, keys=keys).frames if others else []
    return Source(paths, HAMILTONIAN, Frames(frames, None, dict(stored.attributes)), keys, facts=facts)


def _files(paths, ending):
    """Files with an ending among ``paths`` and in the folders among them."""
    return [
        file
        for path in paths
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.name.endswith(ending)
    ]


def _read_mala(paths, keys, progress):
    from ase_mlelec.io.mala import read_mala

    infos, frames, temperatures = _files(paths, ".info.json"), [], set()
    for info in progress(infos):
        found = read_mala(info)
        labels = {name: getattr(found, name) for name in ("energy", "forces") if getattr(found, name) is not None}
        frames.append(Frame(found.atoms, labels, info.name.removesuffix(".info.json")))
        temperatures.add(found.temperature)
    upf = [file for path in paths if path.is_dir() for file in sorted(path.iterdir()) if file.suffix.lower() == ".upf"]
    pseudopotentials = " ".join(f"--upf {file}" for file in upf) or "--upf FILE (once for every element)"
    remedy = (
        "the energies of the LDOS are in no file: write a data set that has them by 'mlelec convert "
        f"{' '.join(map(str, infos))} {pseudopotentials} --grid FIRST LAST --out {paths[0].stem}.h5', with the first and "
        f"the last energy in eV from MALA's parameters, and run 'mlelec init {paths[0].stem}.h5'"
    )
    known = sorted(temperature for temperature in temperatures if temperature is not None)
    facts = {"electrons": f"{known[0]:g} to {known[-1]:g} K"} if known else {}
    return Source(paths, MALA, Frames(frames), facts=facts, remedy=remedy)


def _read_wannier90(paths, keys, progress):
    from ase import Atoms

    from ase_mlelec.io.wannier90 import read_run, read_win
    from ase_mlelec.io.wannier90.files import beside

    files, frames, facts = _files(paths, ENDINGS), [], {}
    for file in progress(files):
        run, win = read_run(file), beside(file, ".win")
        atoms = read_win(win).atoms if win else Atoms(cell=run.cell, pbc=True)
        frames.append(Frame(atoms, {}, file.name))
        facts["Hamiltonian"] = (
            f"{run.hamiltonian.matrices[0].shape[0]} functions, {len(run.hamiltonian.r_vectors)} lattice vectors"
        )
    remedy = (
        "a model of the Hamiltonian needs runs of several structures of a layered crystal: write a data set of them by "
        f"'mlelec convert {' '.join(map(str, paths))} --out {paths[0].stem}.h5', and run 'mlelec init {paths[0].stem}.h5'; "
        f"the bands of one run need no model: 'mlelec bands {files[0]}'"
    )
    return Source(paths, WANNIER90, Frames(frames), facts=facts, remedy=remedy)
