"""Snapshots of the local density of states from pp.x (plot_num = 3, one file per energy) and the pw.x run before it."""

import math
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_mlelec import units
from ase_mlelec.data.runs.espresso import FERMI_DIRAC, REFERENCE, is_of_structure, pseudopotential_of, result_of
from ase_mlelec.data.runs.find import DEPTH, MANY, NO_TEXT, Place, Texts, espresso_runs, paths_apart
from ase_mlelec.data.runs.pseudopotentials import electrons_of
from ase_mlelec.data.snapshots import Snapshot, write_snapshots
from ase_mlelec.io.cube import read_cubes
from ase_mlelec.io.espresso import PwResult, read_ldos
from ase_mlelec.io.espresso.setup import Setup, read_setup
from ase_mlelec.io.projections import broaden
from ase_mlelec.io.text import float_or
from ase_mlelec.io.upf import read_upf
from ase_mlelec.physics import fermi

TITLE = re.compile(r"Energy =\s*(\S+) eV, broadening =\s*(\S+) eV")
FITS = 0.02  # of the largest density of states: what the LDOS adds up to differs by less from that of the levels
REACH = 2.5  # widths between the grid and the lowest level
THERMAL = 8.0  # kT between the Fermi level and the end of the grid


class LdosFiles(NamedTuple):
    """Files of one snapshot.

    Attributes
    ----------
    folder : Path
    paths : tuple of Path
        One per energy, the energies rise.
    energies : array [S], eV
    width : float, eV
        Broadening.
    """

    folder: Path
    paths: tuple
    energies: NDArray
    width: float


def ldos_folders(path: str | PathLike) -> list[LdosFiles]:
    """Sets of files of the local density of states in a folder, or in folders below it; empty list without any."""
    path = Path(path)
    if not path.is_dir():
        return []
    for depth in range(DEPTH + 1):
        folders = [path] if depth == 0 else sorted(each for each in path.glob("/".join("*" * depth)) if each.is_dir())
        found = [files for folder in folders if (files := _files(folder))]
        if found:
            return found
    return []


def _files(folder):
    """LdosFiles of a folder, of filplot files where there are, else of cube files; None for less than two energies."""
    kinds: dict[bool, dict[float, Path]] = {False: {}, True: {}}
    widths = set()
    suffixes = [each for each in NO_TEXT if each != ".cube"]
    for each in [each for each in sorted(folder.iterdir()) if each.suffix.lower() not in suffixes][:MANY]:
        if not each.is_file():
            continue
        with open(each, "rb") as file:
            title = TITLE.search(file.read(240).decode("ascii", errors="replace"))
        if title is None:
            continue
        energy, width = (float_or(word, math.nan) for word in title.groups())
        kinds[each.suffix.lower() == ".cube"].setdefault(energy, each)
        widths.add(width)
    chosen = kinds[False] if len(kinds[False]) > 1 else kinds[True]
    if len(chosen) < 2:
        return None
    if len(widths) > 1 or not all(map(math.isfinite, (*widths, *chosen))):
        raise ValueError(
            f"{folder}: its files of the LDOS have the broadenings {sorted(widths)}, need one; keep the files of one "
            "pp.x run"
        )
    energies = np.array(sorted(chosen))
    steps = np.diff(energies)
    if np.ptp(steps) > 2.1e-4 * max(1, len(steps)) ** 0.5:  # the title has four decimals
        gap = int(steps.argmax())
        raise ValueError(
            f"{folder}: energies are missing between {energies[gap]:g} and {energies[gap + 1]:g} eV; run pp.x again, or "
            "copy all of its files"
        )
    grid = np.linspace(energies[0], energies[-1], len(energies))
    return LdosFiles(folder, tuple(chosen[energy] for energy in energies), grid, widths.pop())


class _Run(NamedTuple):
    """A snapshot before its LDOS is read."""

    files: LdosFiles
    place: Place
    setup: Setup
    result: PwResult
    temperature: float
    name: str


def write_ldos(
    target: str | PathLike,
    sources: Sequence[str | PathLike],
    *,
    electronic_temperature: float | None = None,
    pseudopotentials: Sequence[str | PathLike] = (),
    n_points: int | None = None,
) -> list[str]:
    """Write snapshots from folders with files of pp.x and the pw.x run; returns lines that say what was written.

    Parameters
    ----------
    target : path
    sources : sequence of paths
        Folders, or folders above them.
    electronic_temperature : float, K, or None
        Default: that of the Fermi-Dirac smearing in prefix.save or in a text output of the pw.x run.
    pseudopotentials : sequence of paths
        UPF files that are not in prefix.save.
    n_points : int or None
        How many random grid points of each snapshot keep their LDOS. Default: all.

    Raises
    ------
    ValueError
        For missing files, other broadening than Gaussian, an LDOS that does not fit the levels of its pw.x run, energies
        that do not hold the electrons, and pseudopotentials that are not norm-conserving.
    """
    found = [files for source in sources for files in ldos_folders(source)]
    names = paths_apart([files.folder for files in found])
    texts = Texts()
    runs = [
        _run(files, name or files.folder.absolute().name, texts, electronic_temperature)
        for files, name in zip(found, names)
    ]
    first = runs[0].files
    for run in runs:
        own = run.files.energies
        if (
            len(own) != len(first.energies)
            or np.abs(own - first.energies).max() > 1e-3
            or run.files.width != first.width
        ):
            raise ValueError(
                f"{run.files.folder}: {len(own)} energies from {own[0]:g} to {own[-1]:g} eV, broadening "
                f"{run.files.width:g} eV, those of {first.folder} are {len(first.energies)} from {first.energies[0]:g} "
                f"to {first.energies[-1]:g} eV, {first.width:g} eV; convert snapshots of different energies apart"
            )
    attributes = _attributes(runs, pseudopotentials)
    levels: list[float] = []
    snapshots = (_snapshot(run, n_points, levels) for run in runs)
    write_snapshots(target, snapshots, energies=first.energies, attributes=attributes)
    return _described(runs, attributes, levels, n_points)


def _run(files, name, texts, electronic_temperature):
    places = espresso_runs(files.folder)
    if len(places) != 1:
        names = ", ".join(str(place.save) for place in places[:3]) or "none"
        raise ValueError(
            f"{files.folder}: need one pw.x run beside the files of the LDOS, prefix.save with data-file-schema.xml, got "
            f"{names}; put it there"
        )
    place = places[0]._replace(folders=(*places[0].folders, files.folder))
    setup = read_setup(place.save)
    if setup.spin:
        raise ValueError(f"{place.save}: an LDOS of a run with spin is not supported; use nspin = 1")
    if setup.grid is None:
        raise ValueError(f"{place.save}: no <fft_grid> in data-file-schema.xml; run pw.x again")
    result = result_of(place, setup, texts)
    if result is None:
        raise ValueError(
            f"{place.save}: an nscf run, and no output of the scf run of this structure near it; put it into {files.folder}"
        )
    temperature = electronic_temperature
    if temperature is None:
        temperature = _temperature(place, setup, texts)
    return _Run(files, place, setup, result, temperature, name)


def _temperature(place, setup, texts):
    """Electronic temperature, K; the smearing in prefix.save may be rewritten to Gaussian for pp.x."""
    if setup.smearing == FERMI_DIRAC:
        return setup.smearing_width / units.KB
    for path in texts.of(place, "PWSCF"):
        text = path.read_bytes().decode("utf-8", errors="replace")
        if re.search(r"number of k points=\s*\S+\s+Fermi-Dirac\s+smearing", text):
            found = re.search(r"smearing, width \(Ry\)=\s*([\d.]+)", text)
            width = setup.smearing_width if setup.smearing else float(found[1]) * units.RYDBERG if found else 0.0
            return width / units.KB
    raise ValueError(
        f"{place.save}: the temperature of the electrons is not known, as neither prefix.save nor a text output of pw.x "
        "near it tells a Fermi-Dirac smearing; give it with --electronic-temperature"
    )


def _attributes(runs, pseudopotentials) -> dict[str, Any]:
    """Attributes of the file, dict of JSON types."""
    given = {upf.symbol: upf for upf in map(read_upf, pseudopotentials)}
    found = {}
    for run in runs:
        for symbol in run.setup.pseudopotentials:
            path = pseudopotential_of(run.place, run.setup, symbol)
            if symbol in given:
                found[symbol] = given[symbol]
            elif symbol not in found:
                if path is None:
                    raise ValueError(
                        f"{run.place.save}: the pseudopotential of {symbol}, {run.setup.pseudopotentials[symbol]}, is not "
                        "there; give it with --upf"
                    )
                found[symbol] = read_upf(path)
    for symbol, upf in found.items():
        if upf.is_ultrasoft:
            raise ValueError(
                f"{runs[0].place.save}: the pseudopotential of {symbol} is ultrasoft or PAW, whose LDOS lacks the "
                "augmentation charge; calculate with a norm-conserving one"
            )
    for run in runs:
        total = sum(found[symbol].z_valence for symbol in run.setup.symbols)
        if abs(total - run.setup.n_electrons) > 1e-3:
            raise ValueError(
                f"{run.place.save}: the calculation has {run.setup.n_electrons:g} electrons, its atoms have {total:g} by "
                "their pseudopotentials; give those of the calculation with --upf, and leave charged cells out"
            )
    first = runs[0]
    settings = first.setup.settings | {"smearing": FERMI_DIRAC}
    return electrons_of([found[symbol] for symbol in sorted(found)]) | {
        "dos_width_eV": first.files.width,
        "energy_reference": REFERENCE,
        "settings": settings,
        "grid_spacing_A": float((np.linalg.norm(first.setup.cell, axis=1) / first.setup.grid).mean()),
    }


def _snapshot(run, n_points, levels):
    """Snapshot of a run; its Fermi level is added to ``levels``."""
    energies, folder = run.files.energies, run.files.folder
    if run.files.paths[0].suffix.lower() == ".cube":
        found, ldos = read_cubes(run.files.paths)
        _check_structure(run, found)
    else:
        ldos = read_ldos(run.files.paths)
    atoms = Atoms(run.setup.symbols, run.setup.positions, cell=run.setup.cell, pbc=True)
    dos = ldos.mean(axis=(0, 1, 2)) * atoms.get_volume()
    _check_levels(run, dos)
    level = fermi.fermi_level(energies, dos, run.setup.n_electrons, run.temperature)
    if level + THERMAL * units.KB * run.temperature > energies[-1]:
        raise ValueError(
            f"{folder}: the energies end at {energies[-1]:g} eV, too near to the Fermi level, {level:.2f} eV, at "
            f"{run.temperature:g} K; run pp.x with a larger emax"
        )
    levels.append(level)
    density = ldos @ fermi.integration_weights(energies, level, run.temperature)[0]
    shape, points = ldos.shape[:3], None
    ldos = ldos.reshape(-1, len(energies))
    if n_points is not None and n_points < len(ldos):
        seed = int.from_bytes(run.name.encode(), "big") % 2**32
        points = np.sort(np.random.default_rng(seed).choice(len(ldos), n_points, replace=False))
        ldos = ldos[points]
    return Snapshot(
        atoms,
        shape,
        run.temperature,
        ldos,
        dos,
        points,
        density,
        run.result.energy,
        run.result.forces,
        run.result.stress,
        run.setup.fermi_level,
        run.name,
    )


def _check_structure(run, atoms):
    """Refuse cubes whose points lie elsewhere in the crystal than those of its cell, with the first one at the origin."""
    if not is_of_structure(atoms, run.setup):
        raise ValueError(
            f"{run.files.paths[0]}: its cell, its atoms or the origin of its points are not those of {run.place.save}; run "
            "pp.x with output_format = 6 and without e1, e2, e3 and x0, on the whole cell of this run"
        )


def _check_levels(run, dos):
    """Refuse an LDOS that is not broadened by a Gaussian, of another run or another unit, and lowest levels outside."""
    energies, width, levels = run.files.energies, run.files.width, run.setup.eigenvalues
    if levels is None or run.setup.kpoint_weights is None:
        return
    weights = np.broadcast_to(run.setup.kpoint_weights[:, None], levels.shape).ravel()
    lowest = float(levels.min())
    if energies[0] > lowest - REACH * width:
        raise ValueError(
            f"{run.files.folder}: the energies begin at {energies[0]:g} eV, but the lowest level is at {lowest:.2f} eV: "
            f"electrons would be missing; run pp.x with emin = {math.floor(lowest - 4 * width)} or less"
        )
    right = broaden(levels.ravel(), weights[:, None], energies, width)[0]
    away = np.abs(dos - right).max() / right.max()
    if away < FITS:
        return
    x = (energies - levels.ravel()[:, None]) / width
    thermal = weights @ (0.25 / (np.cosh(np.clip(x / 2, -350, 350)) ** 2 * width))
    if np.abs(dos - thermal).max() / right.max() < FITS:
        raise ValueError(
            f"{run.files.folder}: pp.x broadened the LDOS with the smearing of the pw.x run, the derivative of the Fermi "
            f"function, and need a Gaussian; in {run.place.save}/data-file-schema.xml write gaussian between <smearing "
            "...> and </smearing>, and run pp.x again"
        )
    raise ValueError(
        f"{run.files.folder}: the LDOS adds up to a density of states that is off by {100 * away:.0f} % from that of the "
        f"levels of {run.place.save} with Gaussians of {width:g} eV; the files are of different runs: run pp.x again"
    )


def _described(runs, attributes, levels, n_points) -> list[str]:
    """Lines for people."""
    energies, temperatures = runs[0].files.energies, sorted({round(run.temperature, 3) for run in runs})
    counts = ", ".join(f"{symbol} {count:g}" for symbol, count in attributes["valence_electrons"].items())
    kelvin = f"{temperatures[0]:g}" + (f" to {temperatures[-1]:g}" if len(temperatures) > 1 else "")
    return [
        f"LDOS: {len(energies)} energies from {energies[0]:g} to {energies[-1]:g} eV, Gaussian exp(-(x/s)^2) with s = "
        f"{runs[0].files.width:g} eV; {'all' if n_points is None else n_points} grid points of each snapshot, "
        f"{attributes['grid_spacing_A']:.3f} Å apart",
        f"electrons: {counts}; temperature {kelvin} K; Fermi levels {min(levels):.3f} to {max(levels):.3f} eV; functional "
        f"{attributes['xc']}",
    ]
