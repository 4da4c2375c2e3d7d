"""Wannier centers of Wannier90 runs and of CP2K trajectories as data sets of centroids and dipoles."""

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.data.images import from_images
from ase_mlelec.data.ions import outer_electrons
from ase_mlelec.data.runs.find import DEPTH, Texts, paths_apart
from ase_mlelec.data.runs.wannier import result_for
from ase_mlelec.io.cp2k import is_centers, read_cells, read_centers_trajectory
from ase_mlelec.io.wannier90 import Wannier90Error, read_win
from ase_mlelec.io.wannier90.centers import Centers, assign_centers, read_centers
from ase_mlelec.io.wannier90.win import is_spinor
from ase_mlelec.quantities import DIPOLE, QUANTITIES

VECTORS = QUANTITIES[DIPOLE].atomic
NEUTRAL = 0.01  # e
SHOWN = 3  # reasons in a warning
Charges = Mapping[str, float]


class Snapshot(NamedTuple):
    """Centers of one structure, with the labels that are known otherwise; ``per_function`` electrons in a function."""

    name: str
    source: str
    atoms: Atoms
    centers: Centers | NDArray
    per_function: int
    labels: dict


def wannier_runs(path: str | PathLike) -> list[Path]:
    """Files ``seed.win`` of runs with centers in a folder or folders below it; empty list for anything else."""
    path = Path(path)
    if path.is_file():
        return [path] if path.name.endswith(".win") and _centers_beside(path) else []
    for depth in range(DEPTH + 1) if path.is_dir() else ():
        found = [each for each in sorted(path.glob("*/" * depth + "*.win")) if _centers_beside(each)]
        if found:
            return found
    return []


def has_centers(path: str | PathLike) -> bool:
    """Whether a path is a trajectory of centers of CP2K, or holds runs of Wannier90 with centers."""
    return is_centers(path) or bool(wannier_runs(path))


def _centers_beside(win):
    """``seed.wout``, which has spreads and a cell too, or ``seed_centres.xyz``, or None."""
    seed = win.name.removesuffix(".win")
    names = [f"{seed}{ending}{packed}" for ending in (".wout", "_centres.xyz") for packed in ("", ".gz")]
    return next((win.with_name(name) for name in names if win.with_name(name).is_file()), None)


def read_center_runs(
    paths: Sequence[str | PathLike],
    *,
    functions: Mapping[str, int] | None = None,
    ions: Charges | None = None,
    cell: ArrayLike | None = None,
) -> Frames:
    """Read runs of Wannier90 and trajectories of CP2K as one data set of centroids and dipoles.

    Structures whose centers cannot be shared out among the atoms are left out, with a warning.

    Parameters
    ----------
    paths : sequence of paths
        Folders with ``seed.win`` and ``seed.wout`` or ``seed_centres.xyz``, or folders above them, with the output of pw.x
        for energies and forces where it is there; trajectories of CP2K.
    functions : dict of int by symbol
        Wannier functions of each atom. Default: all at the one species that is not hydrogen.
    ions : dict of float by symbol, e
        Charges of the ions. Default: electrons of the outermost s and p shells.
    cell : array [3, 3], Å
        For trajectories of CP2K without one in the comments or in a file of cells beside them.

    Returns
    -------
    Frames
        With atomic_dipole, Å, from each atom to the mean of its centers; dipole, e Å, of ions and electrons, each atom
        with its own electrons; and energy, forces and virial where pw.x calculated them. ``attributes`` has
        valence_charges and electrons_per_centre.

    Raises
    ------
    ValueError
        For missing and damaged files, for charges that do not add up, and where no structure is left.
    """
    snapshots = [each for path in paths for each in _snapshots(Path(path), cell)]
    if not snapshots:
        raise ValueError(
            f"{paths[0]}: no Wannier centers in it; give folders with seed.win and seed.wout, or CP2K's xyz"
        )
    functions = functions or _functions_of(snapshots)
    ions = ions or _ions_of(snapshots)
    electrons = _electrons(snapshots, functions)
    _check_neutral(snapshots, ions)
    frames, reasons = [], []
    for each in snapshots:
        try:
            frames.append(_frame(each, functions, ions))
        except Wannier90Error as error:
            reasons.append(f"{each.source}: {error}")
    if not frames:
        raise ValueError(f"{reasons[0]}; no structure is left of {len(snapshots)}")
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {len(snapshots)} structures are left out: {'. '.join(reasons[:SHOWN])}", stacklevel=2
        )
    about = {
        "valence_charges": dict(ions),
        "electrons_per_centre": electrons,
        VECTORS: "Å, from an atom to the mean of its Wannier centers; 0 where it has none",
        DIPOLE: "e Å, of ions and electrons, each centroid next to its atom",
    }
    return Frames(frames, None, about)


def _snapshots(path, cell):
    """Snapshots of one source."""
    if is_centers(path) and not _win_of(path):
        return _of_cp2k(path, cell)
    wins = wannier_runs(_win_of(path) or path)
    names, texts = paths_apart([win.absolute().parent for win in wins]), Texts()
    return [_of_wannier90(win, name or win.stem, texts) for win, name in zip(wins, names)]


def _win_of(path):
    """``seed.win`` beside ``seed_centres.xyz``, or None."""
    name = path.name.removesuffix(".gz")
    win = path.with_name(f"{name.removesuffix('_centres.xyz')}.win")
    return win if name.endswith("_centres.xyz") and win.is_file() else None


def _of_wannier90(path, name, texts):
    win, file = read_win(path), _centers_beside(path)
    centers = read_centers(file)
    bands = win.keywords.get("num_bands", "").split()
    if centers.n_bands is None and bands and bands[0].isdigit():
        centers = centers._replace(n_bands=int(bands[0]))
    result, labels = result_for(path, win.atoms, texts), {}
    if result is not None:
        labels = dict(from_images([result.to_atoms()]).frames[0].labels)
    return Snapshot(name, str(file), win.atoms, centers, 1 if is_spinor(path, win.keywords) else 2, labels)


def _of_cp2k(path, cell):
    found, stem = read_centers_trajectory(path), path.name.removesuffix(".gz").removesuffix(".xyz")
    project = stem.split("-")[0]
    files = sorted(path.parent.glob(f"{project}*.cell"))
    cells = read_cells(files[0]) if len(files) == 1 and cell is None else {}
    snapshots = []
    for k, frame in enumerate(found):
        own = frame.cell if frame.cell is not None else cells.get(frame.step, cell)
        if own is None:
            where = (
                f"{files[0]} has no step {frame.step}" if cells else f"there is no one file {project}*.cell beside it"
            )
            raise ValueError(
                f"{path}: frame {k} has no cell, and {where}; give the cell with --cell, such as --cell 15.6"
            )
        atoms = Atoms(frame.symbols, frame.positions, cell=own, pbc=True)
        label = f"{stem}-{k if frame.step is None else frame.step}"
        snapshots.append(Snapshot(label, f"{path}, frame {k}", atoms, frame.centers, 2, {}))
    return snapshots


def _count(centers):
    return len(centers.positions if isinstance(centers, Centers) else centers)


def _species(snapshots):
    return sorted({str(symbol) for each in snapshots for symbol in each.atoms.symbols})


def _functions_of(snapshots):
    """Functions of each atom, dict by symbol, where only one species can have them."""
    heavy = [symbol for symbol in _species(snapshots) if symbol != "H"]
    shares = {
        _count(each.centers) / max(sum(str(symbol) == heavy[0] for symbol in each.atoms.symbols), 1) if heavy else 0.5
        for each in snapshots
    }
    share = shares.pop()
    if len(heavy) != 1 or shares or share != int(share):
        example = " ".join(f"--functions {symbol}=4" for symbol in heavy[:2]) or "--functions O=4"
        raise ValueError(
            f"{snapshots[0].source}: the atoms to which {_count(snapshots[0].centers)} centers belong cannot be told in "
            f"{snapshots[0].atoms.symbols}; give the centers of an atom, such as {example}"
        )
    return {heavy[0]: int(share)}


def _ions_of(snapshots):
    """Charges of ions of main groups."""
    found = {symbol: outer_electrons(symbol) for symbol in _species(snapshots)}
    unknown = [symbol for symbol, charge in found.items() if charge is None]
    if unknown:
        raise ValueError(
            f"{snapshots[0].source}: the charge of the ion {unknown[0]} is that of its pseudopotential; give --upf FILE, or "
            f"--ions {unknown[0]}=N"
        )
    return {symbol: float(charge) for symbol, charge in found.items() if charge is not None}


def _electrons(snapshots, functions):
    """Electrons at each centroid, dict of e by symbol."""
    per = {each.per_function for each in snapshots}
    if len(per) > 1:
        raise ValueError(f"{snapshots[0].source}: got spinors beside other functions; convert them apart")
    foreign = sorted({*functions} - {*_species(snapshots)})
    if foreign:
        raise ValueError(
            f"{snapshots[0].source}: got functions of {foreign[0]}, there are {', '.join(_species(snapshots))}"
        )
    (electrons,) = per
    return {symbol: float(electrons * count) for symbol, count in functions.items()}


def _check_neutral(snapshots, ions):
    """Refuse charges that miss a species, or that do not make every structure neutral."""
    missing = sorted({*_species(snapshots)} - {*ions})
    if missing:
        raise ValueError(f"{snapshots[0].source}: got no charge of the ion {missing[0]}; give --ions {missing[0]}=N")
    for each in snapshots:
        charge = sum(ions[symbol] for symbol in each.atoms.get_chemical_symbols())
        charge -= each.per_function * _count(each.centers)
        if abs(charge) > NEUTRAL:
            given = ", ".join(f"{symbol} {ion:g}" for symbol, ion in ions.items())
            raise ValueError(
                f"{each.source}: ions {given} and {_count(each.centers)} functions of {each.per_function} electrons leave a "
                f"charge of {charge:g} e; give the charges of the ions with --upf or --ions, without the electrons of "
                "excluded bands"
            )


def _frame(snapshot, functions, ions):
    atoms = snapshot.atoms
    centroids, indices = assign_centers(atoms, snapshot.centers, dict(functions))
    vectors = np.zeros((len(atoms), 3))
    vectors[indices] = centroids - atoms.positions[indices]
    charges = np.array([ions[symbol] for symbol in atoms.get_chemical_symbols()])
    electrons = np.array([snapshot.per_function * functions[atoms.symbols[k]] for k in indices], dtype=float)
    dipole = charges @ atoms.positions - electrons @ centroids
    structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    return Frame(structure, {**snapshot.labels, VECTORS: vectors, DIPOLE: dipole}, snapshot.name)
