"""Folders with Wannier90's Hamiltonian, the electrostatic potential and the pw.x run, as data sets of Hamiltonians."""

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_mlelec import units
from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.data.hamiltonians import Function, HamiltonianFrame, at_their_atoms, referred_to, write_hamiltonians
from ase_mlelec.data.runs.espresso import result_near, result_of
from ase_mlelec.data.runs.find import DEPTH, NO_TEXT, Place, Texts, espresso_runs, paths_apart
from ase_mlelec.io.espresso import PwResult, plot_num_of, read_filplot
from ase_mlelec.io.espresso.setup import read_setup
from ase_mlelec.io.wannier90 import Wannier90Error, Win, lower_excluded, projections_of, read_win
from ase_mlelec.io.wannier90.files import beside, seed_of
from ase_mlelec.physics.bands import eigenvalues
from ase_mlelec.physics.kmesh import monkhorst_pack

ENDINGS = ("_hr.dat", "_hr.dat.gz", "_tb.dat", "_tb.dat.gz")  # the first that is there is read
POTENTIALS = (11, 1)  # plot_num of pp.x: bare + Hartree, and with exchange and correlation, which is short-ranged
FLAT = 0.005  # eV, of the potential over half an Å of vacuum
AWAY = (0.0, 0.5, 1.0, 1.5, 2.0)  # Å from the middle of the vacuum, where a dipole correction has its jump
MAX_AWAY = 0.8  # Å, of the center of a function from its atom
# the phases of a center half-way between two images of a layer are near π and -π, and Wannier90 takes their mean
MIDDLE = "for a layer in the middle of the cell, run wannier90.x again with guiding_centres = true"
MAX_IMAGINARY = 1e-3  # eV, of any element of H(R)
NEAR_INTEGER = 0.2  # electrons
SAME = 1e-3  # Å


class _Structure(NamedTuple):
    symbols: list
    cell: NDArray
    positions: NDArray


class _Found(NamedTuple):
    """What a folder gives."""

    frame: HamiltonianFrame
    vacuum: float
    electrons: float | None
    fermi_level: float | None
    away: float


def wannier_files(path: str | PathLike) -> list[Path]:
    """Hamiltonians of Wannier90 in a folder, or in folders below it, or the file itself; empty list without any.

    Raises
    ------
    ValueError
        For several seeds in a folder.
    """
    path = Path(path)
    if path.is_file():
        return [path] if path.name.endswith(ENDINGS) else []
    for depth in range(DEPTH + 1):
        every = [each for ending in ENDINGS for each in path.glob("*/" * depth + f"*{ending}")]
        folders: dict[Path, list[Path]] = {}
        for each in every:
            folders.setdefault(each.parent, []).append(each)
        for folder, files in folders.items():
            if len(seeds := {seed_of(each) for each in files}) > 1:
                raise ValueError(f"{folder}: got Hamiltonians of {', '.join(sorted(seeds))}, need one; name the file")
        if folders:
            return [folders[folder][0] for folder in sorted(folders)]
    return []


def write_wannier(
    target: str | PathLike,
    sources: Sequence[str | PathLike],
    *,
    electrons: Mapping[str, float] | None = None,
    vacuum_level: float | None = None,
) -> list[str]:
    """Write the Hamiltonians of folders of Wannier90 as a data set; returns lines that say what was written.

    A structure whose functions or vacuum are not good enough is left out, with a warning.

    Parameters
    ----------
    target : path
    sources : sequence of paths
        Folders, folders above them, or files ``seed_hr.dat`` and ``seed_tb.dat``.
    electrons : dict of float by symbol
        Electrons in the functions of an atom. Default: from the numbers of electrons and bands, or of occupied levels.
    vacuum_level : float, eV, or None
        Default: from a filplot file of pp.x with plot_num = 11 in the folder.

    Raises
    ------
    ValueError
        For missing and damaged files, and where no structure is left.
    """
    paths = [path for source in sources for path in wannier_files(source)]
    names = paths_apart([path.absolute().parent for path in paths])
    texts, found, reasons = Texts(), [], []
    for path, name in zip(paths, names):
        try:
            found.append(_read(path, name or seed_of(path), texts, vacuum_level))
        except _Unfit as error:
            reasons.append(f"{path.parent}: {error}")
    if not found:
        raise ValueError(f"{reasons[0]}; no structure is left of {len(paths)}")
    if reasons:
        warnings.warn(f"{len(reasons)} of {len(paths)} structures are left out: {'. '.join(reasons[:5])}", stacklevel=3)
    counts = dict(electrons) if electrons else _electrons_per_atom(found)
    attributes: dict[str, Any] = {"settings": {"program": "Wannier90"}}
    if counts:
        attributes["electrons_per_atom"] = counts
    write_hamiltonians(target, [each.frame for each in found], attributes=attributes)
    return _described(found, counts)


class _Unfit(Exception):
    """A structure is not good enough."""


def _read(path, name, texts, vacuum_level):
    win_path = beside(path, ".win")
    if win_path is None:
        raise ValueError(f"{path}: need {seed_of(path)}.win beside it, with atoms and projections; copy it there")
    win = read_win(win_path)
    functions = [Function(*each) for each in projections_of(win_path, win)]
    hamiltonian = WannierHamiltonian.read(path)
    if len(functions) != hamiltonian.size:
        raise Wannier90Error(
            f"{win_path}: its projections are {len(functions)} functions, {path.name} has {hamiltonian.size}; give "
            "projections of as many functions, without select_projections"
        )
    if hamiltonian.spin_degeneracy != 2:
        raise Wannier90Error(f"{path}: Hamiltonians of spinors are not learned; leave out spin-orbit coupling")
    if not hamiltonian.centers.any():
        raise ValueError(f"{path}: need {seed_of(path)}.wout or {seed_of(path)}_centres.xyz beside it; copy one there")
    result = result_for(path, win.atoms, texts)
    level = _vacuum(path, win.atoms) if vacuum_level is None else vacuum_level
    electrons = None if result is None else _electrons(win, hamiltonian, result)
    hamiltonian, away = _checked(hamiltonian, win.atoms, functions)
    frame = HamiltonianFrame(
        Atoms(win.atoms.numbers, win.atoms.positions, cell=win.atoms.cell, pbc=True),
        referred_to(hamiltonian, level),
        functions,
        None if result is None else result.energy,
        None if result is None else result.forces,
        name,
    )
    return _Found(frame, level, electrons, None if result is None else result.fermi_level, away)


def _checked(hamiltonian, atoms, functions):
    """The real Hamiltonian with functions at their atoms, and the largest distance, Å, of a center from its atom."""
    hamiltonian = at_their_atoms(hamiltonian, atoms, functions)
    owners = [function.atom for function in functions]
    vectors = hamiltonian.centers - atoms.positions[owners]
    away = float(np.linalg.norm(vectors, axis=1).max())
    if away > MAX_AWAY:
        normal = np.cross(*atoms.cell.array[:2])
        within = vectors - np.outer(vectors @ normal, normal) / (normal @ normal)
        remedy = f"; {MIDDLE}" if np.linalg.norm(within, axis=1).max() <= MAX_AWAY else ""
        raise _Unfit(f"a function is {away:.2f} Å from its atom, need at most {MAX_AWAY}{remedy}")
    if not hamiltonian.bloch.is_real:
        imaginary = float(abs(hamiltonian.bloch.stacked.imag).max())
        if imaginary > MAX_IMAGINARY:
            raise _Unfit(
                f"elements of H(R) are complex, {1000 * imaginary:.1f} meV, need at most {1000 * MAX_IMAGINARY:g}"
            )
        matrices = [matrix.real for matrix in hamiltonian.bloch.tolist()]
        hamiltonian = WannierHamiltonian(
            hamiltonian.cell, hamiltonian.r_vectors, matrices, centers=hamiltonian.centers, spin_degeneracy=2
        )
    return hamiltonian, away


def result_for(path: Path, atoms: Atoms, texts: Texts) -> PwResult | None:
    """Energy and forces of the structure from a pw.x run in the folder, or None."""
    structure = _Structure(list(atoms.symbols), atoms.cell.array, atoms.positions)
    places = espresso_runs(path.parent)
    result = None
    if len(places) == 1:
        result = result_of(places[0], read_setup(places[0].save), texts)
    if result is None:
        result = result_near(Place(path.parent, "", (path.parent,)), structure, texts)
    if result is None:
        return None
    away = (result.positions - atoms.positions) @ np.linalg.inv(atoms.cell.array)
    moved = np.abs((away - np.rint(away)) @ atoms.cell.array).max() if len(away) == len(atoms) else np.inf
    if list(result.symbols) != structure.symbols or moved > SAME:
        warnings.warn(f"{path.parent}: its pw.x run is of another structure than that of Wannier90", stacklevel=5)
        return None
    return result


def _vacuum(path: Path, atoms: Atoms) -> float:
    """Level of the vacuum, eV: mean of both sides of a slab that is periodic along the first two cell vectors."""
    files = [each for each in sorted(path.parent.iterdir()) if each.suffix.lower() not in NO_TEXT and each.is_file()]
    numbers = {each: plot_num_of(each) for each in files}
    chosen = [each for wanted in POTENTIALS for each in files if numbers[each] == wanted]
    if not chosen:
        raise ValueError(
            f"{path.parent}: need the level of the vacuum, to which energies are relative; run pp.x with plot_num = 11 and "
            "a filplot file in this folder, or give --vacuum-level"
        )
    planes = read_filplot(chosen[0]).mean(axis=(0, 1)) * units.RYDBERG
    heights = np.sort(atoms.get_scaled_positions()[:, 2] % 1)
    gaps = np.diff(np.append(heights, heights[0] + 1))
    middle = heights[gaps.argmax()] + gaps.max() / 2
    height = ((np.arange(len(planes)) / len(planes) - middle + 0.5) % 1 - 0.5) * atoms.cell.volume / _area(atoms)
    spreads = []
    for away in AWAY:
        sides = [planes[(away <= way * height) & (way * height <= away + 0.5)] for way in (1, -1)]
        if min(map(len, sides)) < 2 or away + 0.5 > gaps.max() / 2 * atoms.cell.volume / _area(atoms):
            break
        spreads.append(max(map(np.ptp, sides)))
        if spreads[-1] < FLAT:
            return float(np.mean([side.mean() for side in sides]))
    varies = f"the potential varies by {1000 * min(spreads):.0f} meV" if spreads else "there is no vacuum"
    raise _Unfit(f"{varies} in the vacuum, need less than {1000 * FLAT:g} meV; make the cell higher")


def _area(atoms):
    return np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1]))


def _electrons(win: Win, hamiltonian: WannierHamiltonian, result: PwResult) -> float | None:
    """Electrons in the functions, from the numbers of electrons and bands, or of levels below the Fermi level."""
    size = hamiltonian.size
    try:
        bands = int(win.keywords.get("num_bands", size))
        excluded = lower_excluded(win.keywords.get("exclude_bands", ""))
        mesh = [int(word) for word in win.keywords["mp_grid"].replace(",", " ").split()[:3]]
    except (KeyError, ValueError):
        return None
    if bands == size and result.n_electrons is not None:
        return result.n_electrons - 2 * excluded
    if result.fermi_level is None:
        return None
    points = monkhorst_pack([2 * n if n > 1 else 1 for n in mesh])
    filled = 2 * (eigenvalues(hamiltonian.bloch, points) < result.fermi_level).sum() / len(points)
    return float(round(filled)) if abs(filled - round(filled)) < NEAR_INTEGER else None


def _electrons_per_atom(found: Sequence[_Found]) -> dict[str, float]:
    """Electrons of an atom by symbol, which add up to those of every structure; empty, with a warning, where unknown."""
    known = [each for each in found if each.electrons is not None]
    symbols = sorted({symbol for each in found for symbol in each.frame.atoms.symbols})
    counts = np.array([[list(each.frame.atoms.symbols).count(symbol) for symbol in symbols] for each in known])
    totals = np.array([each.electrons for each in known], dtype=float)
    if len(known):
        # of all that add up: those that are most alike
        values = np.linalg.lstsq(counts.astype(float), totals, rcond=None)[0]
        if np.abs(counts @ values - totals).max() < 1e-6:
            return dict(zip(symbols, map(float, values.round(9))))
    option = " ".join(f"--electrons {symbol}=N" for symbol in symbols)
    warnings.warn(
        "the number of electrons in the functions is not known, so that models have no Fermi level; give it by atom, "
        f"{option}",
        stacklevel=4,
    )
    return {}


def _described(found, counts) -> list[str]:
    """Lines for people."""
    sizes = sorted({each.frame.hamiltonian.size for each in found})
    energies = sum(each.frame.energy is not None for each in found)
    forces = sum(each.frame.forces is not None for each in found)
    vacuum = [each.vacuum for each in found]
    work = [each.vacuum - each.fermi_level for each in found if each.fermi_level is not None]
    electrons = ", ".join(f"{symbol} {count:g}" for symbol, count in counts.items()) or "not known"
    lines = [
        f"Hamiltonians of {' or '.join(map(str, sizes))} functions, whose centers are at most "
        f"{max(each.away for each in found):.3f} Å from their atoms; {energies} with energies, {forces} with forces",
        f"electrons per atom: {electrons}; vacuum levels {min(vacuum):.3f} to {max(vacuum):.3f} eV, the zero of energies",
    ]
    if work:
        lines[-1] += f"; work functions {min(work):.3f} to {max(work):.3f} eV"
    return lines
