"""Densities of states of calculations as data sets: width, energy grid, electrons, and what a later step needs of them."""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_mlelec import units
from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.data.runs.projected import ProjectedRun
from ase_mlelec.io.upf import read_upf

WIDTH = 0.04 * units.RYDBERG  # eV
STEPS_PER_WIDTH = 4  # of the default grid: a Gaussian, linear between its points, is right to 1 % of its peak
BELOW, TAIL = 4.0, 2.0  # widths between the lowest level and the grid; between the grid and the first missing band
OUTSIDE = 7.0  # widths, beyond which a Gaussian is zero to double precision
ABOVE = 20.0  # eV, most above the Fermi level on the default grid
THERMAL = 8.0  # kT above the Fermi level that a grid has to hold
LARGEST_GRID = 100_000
SAME_TEMPERATURE = 1e-3  # relative
POORLY_PROJECTED = 0.9


@dataclass(frozen=True)
class Spectra:
    """How densities of states are made from the levels of calculations.

    Parameters
    ----------
    width : float, eV
        Width s of the Gaussian exp(-(x/s)²) of every level; 0.544 eV (0.04 Ry) suits meshes of some 0.2/Å.
    grid : (first, last), eV, or None
        First and last energy of the spectra. Default: from the lowest level to where bands begin to be missing, at most
        20 eV above the Fermi level.
    step : float, eV, or None
        Distance of the energies. Default: a fourth of the width, or a little less.
    electronic_temperature : float, K, or None
        Default: that of the Fermi-Dirac smearing of the calculations, or 0 K without such a smearing.
    pseudopotentials : sequence of paths
        UPF files of elements whose valence electrons the calculations do not tell.
    normalize : bool or None
        Whether the shares of a level on the atoms are scaled to the sum 1. Default: for VASP, whose spheres leave out a
        part of space.

    Raises
    ------
    ValueError
        For a width that is not positive, a grid that does not rise, and a negative temperature.
    """

    width: float = WIDTH
    grid: tuple[float, float] | None = None
    step: float | None = None
    electronic_temperature: float | None = None
    pseudopotentials: Sequence[str | PathLike] = ()
    normalize: bool | None = None

    def __post_init__(self):
        if not 1e-3 <= self.width <= 100:
            raise ValueError(f"width: got {self.width:g} eV, need 0.001 to 100, such as {WIDTH:.2f}")
        if self.step is None:
            object.__setattr__(self, "step", _round_step(self.width))
        if not 1e-4 <= self.step <= 10:
            raise ValueError(f"step: got {self.step:g} eV, need 0.0001 to 10, such as {_round_step(self.width):g}")
        if self.grid is not None and not -1e6 < self.grid[0] < self.grid[1] - self.step < 1e6:
            raise ValueError(
                f"grid: got {self.grid[0]:g} {self.grid[1]:g}, need two energies in eV, the lower first, further apart "
                f"than the step, {self.step:g}"
            )
        if self.grid is not None and (self.grid[1] - self.grid[0]) / self.step > LARGEST_GRID:
            raise ValueError(f"grid: got more than {LARGEST_GRID} energies; take a larger step than {self.step:g} eV")
        temperature = self.electronic_temperature
        if temperature is not None and not 0 <= temperature < 1e9:
            raise ValueError(f"electronic_temperature: got {temperature:g} K, need 0 or more")

    @classmethod
    def like(cls, frames: Frames) -> "Spectra | None":
        """Width and energies of the spectra of a data set, to which others shall be added; None where it has none."""
        width, energies = frames.attributes.get("dos_width_eV"), frames.energies
        if width is None or energies is None or len(energies) < 3:
            return None
        first, last = float(energies[0]), float(energies[-1])
        return cls(float(width), (first, last), (last - first) / (len(energies) - 1))

    @property
    def energies(self) -> NDArray | None:
        """Energies of a given grid, array [S], eV; None where they depend on the data."""
        if self.grid is None:
            return None
        first, last = self.grid
        return np.linspace(first, last, round((last - first) / self.step) + 1)  # type: ignore[operator]  # it is set


def _round_step(width):
    """1, 2 or 5 times a power of ten, at most a fourth of the width, eV."""
    most = width / STEPS_PER_WIDTH
    power = 10.0 ** math.floor(math.log10(most * (1 + 1e-9)))
    return max(round(factor * power, 12) for factor in (1, 2, 5) if factor * power <= most * (1 + 1e-9))


class _Part(NamedTuple):
    """Spectra of one run on the points ``start``, start + 1, ... of the grid of multiples of the step."""

    run: ProjectedRun
    start: int
    ados: NDArray
    dos: NDArray
    lowest: float
    complete: float


def known_valence(spectra: Spectra) -> dict[str, float]:
    """Valence electrons by symbol of the pseudopotentials that the user gave."""
    return {upf.symbol: upf.z_valence for upf in map(read_upf, spectra.pseudopotentials)}


def frames_of(runs: Iterable[ProjectedRun], spectra: Spectra) -> Frames:
    """Data set of runs, which are taken one by one, on one energy grid.

    Raises
    ------
    ValueError
        Where the grid does not hold the electrons, for different electronic temperatures, and for elements whose valence
        electrons are not known.
    """
    parts = [_part(run, spectra) for run in runs]
    every = [part.run for part in parts]
    temperature = _temperature(every, spectra)
    valence = _valence(every)
    levels = [_fermi_level(run, temperature) for run in every]
    energies = spectra.energies
    if energies is None:
        first, count = _default_range(parts, levels, temperature, spectra)
        energies = (first + np.arange(count)) * spectra.step
        parts = [_cut(part, first, count) for part in parts]
    _check_grid(parts, levels, energies, temperature, spectra)
    shares = [run.levels.projected_share(level, temperature=temperature) for run, level in zip(every, levels)]
    normalized = {_normalize(run, spectra) for run in every}
    _check_shares(every, shares, normalized)
    frames = [Frame(p.run.atoms, {**p.run.labels, "ados": p.ados, "dos": p.dos}, p.run.name) for p in parts]
    attributes = {
        "dos_width_eV": spectra.width,
        "energy_reference": _same(every, "energy_reference"),
        "valence_electrons": valence,
        "bands_complete_below_eV": min(part.complete for part in parts),
        "fermi_levels_eV": [min(levels), max(levels)],
        "projected_shares": [min(shares), max(shares)],
        "projections_normalized": normalized == {True},
        "temperature_of_smearing": spectra.electronic_temperature is None and temperature > 0,
        "settings": _settings(every) | {"electronic_temperature_K": temperature},
    }
    return Frames(frames, energies, attributes)


def _normalize(run, spectra):
    return run.normalize if spectra.normalize is None else spectra.normalize


def _part(run, spectra):
    levels, step = run.levels, spectra.step
    shares = levels.normalized() if _normalize(run, spectra) else levels
    lowest, energies = float(levels.eigenvalues.min()), spectra.energies
    first = math.floor((lowest - OUTSIDE * spectra.width) / step)
    if energies is None:
        last = math.floor((levels.complete_below - TAIL * spectra.width) / step)
        energies = np.arange(first, max(last, first) + 1) * step
    ados, dos = shares.site_dos(energies, width=spectra.width), levels.total_dos(energies, width=spectra.width)
    # the shares take much memory, and of them the sum alone is needed from here on
    summed = replace(levels, site_weights=levels.site_weights.sum(axis=2, keepdims=True))
    return _Part(replace(run, levels=summed), first, ados, dos, lowest, levels.complete_below)


def _temperature(runs, spectra):
    """Electronic temperature of the data set, K."""
    if spectra.electronic_temperature is not None:
        return float(spectra.electronic_temperature)
    low, high = (choose(runs, key=lambda run: run.temperature or 0.0) for choose in (min, max))
    cold, hot = low.temperature or 0.0, high.temperature or 0.0
    if hot - cold > SAME_TEMPERATURE * hot:
        raise ValueError(
            f"{low.source} is of electrons at {cold:.6g} K, {high.source} at {hot:.6g} K, and one data set has one "
            "temperature; convert them apart, or choose one with --electronic-temperature"
        )
    return round(hot, 3)


def _valence(runs):
    """Valence electrons by symbol: of pseudopotentials, else those that give all runs their number of electrons."""
    known: dict[str, float] = {}
    for run in runs:
        for symbol, count in run.valence.items():
            if abs(known.setdefault(symbol, count) - count) > 1e-6:
                raise ValueError(
                    f"{run.source}: {symbol} has {count:g} valence electrons, and {known[symbol]:g} in another run; "
                    "convert calculations with other pseudopotentials apart"
                )
    unknown = sorted({symbol for run in runs for symbol in run.atoms.symbols} - known.keys())
    if unknown:
        counts = np.array([[list(run.atoms.symbols).count(symbol) for symbol in unknown] for run in runs], dtype=float)
        rest = np.array([run.n_electrons - sum(known.get(symbol, 0) for symbol in run.atoms.symbols) for run in runs])
        found, _, rank, _ = np.linalg.lstsq(counts, rest, rcond=None)
        if rank < len(unknown):
            raise ValueError(
                f"{runs[0].source}: the pseudopotential of {', '.join(unknown)} was not found, which tells the valence "
                f"electrons; give it with {' '.join(f'--upf {symbol}.UPF' for symbol in unknown)}"
            )
        known |= dict(zip(unknown, map(float, found.round(6))))
    for run in runs:
        total = sum(known[symbol] for symbol in run.atoms.symbols)
        if abs(total - run.n_electrons) > 1e-3:
            raise ValueError(
                f"{run.source}: the calculation has {run.n_electrons:g} electrons, its atoms have {total:g} by their "
                "pseudopotentials; give the pseudopotentials of the calculation with --upf, and leave charged cells out"
            )
    return known


def _fermi_level(run, temperature):
    try:
        return run.levels.fermi_level(run.n_electrons, temperature=temperature)
    except ValueError as error:
        raise ValueError(f"{run.source}: {error}; calculate more bands ({run.more_bands})") from None


def _default_range(parts, levels, temperature, spectra):
    """(first, count): the default grid is (first + k) times the step."""
    step = spectra.step
    first = math.floor(min(part.lowest - BELOW * spectra.width for part in parts) / step)
    complete = min(part.complete - TAIL * spectra.width for part in parts)
    highest = max(levels) + ABOVE + 2 * THERMAL * units.KB * temperature
    last = math.floor(min(complete, highest) / step)
    return first, max(last - first, 1) + 1


def _cut(part, first, count):
    """The spectra of a part on the points of the common grid, zero below its own points."""
    before = max(part.start - first, 0)
    kept = slice(max(first - part.start, 0), max(first - part.start, 0) + count - before)
    ados, dos = (np.pad(each[..., kept], [(0, 0)] * (each.ndim - 1) + [(before, 0)]) for each in (part.ados, part.dos))
    return part._replace(ados=ados, dos=dos)


def _check_grid(parts, levels, energies, temperature, spectra):
    """Refuse a grid that does not hold all electrons, and warn where bands are missing on it."""
    lowest, fewest = min(parts, key=lambda part: part.lowest), min(parts, key=lambda part: part.complete)
    if energies[0] > lowest.lowest - TAIL * spectra.width:
        raise ValueError(
            f"{lowest.run.source}: the grid begins at {energies[0]:g} eV, but the lowest level is at "
            f"{lowest.lowest:.2f} eV: electrons would be missing; begin it at "
            f"{math.floor(lowest.lowest - BELOW * spectra.width)} or below"
        )
    for part, level in zip(parts, levels):
        # the Fermi level, and its thermal tail or the edge of the gap, are on the grid
        empty = part.run.levels.edges(part.run.n_electrons)[1]
        needed = max(level + THERMAL * units.KB * temperature, empty) + spectra.width
        if energies[-1] >= needed:
            continue
        advice = f"end it at {math.ceil(needed)} or above"
        if fewest.complete - TAIL * spectra.width < needed:
            of = "they" if fewest is part else f"those of {fewest.run.source}"
            advice = (
                f"calculate more bands ({part.run.more_bands}): {of} are complete only below {fewest.complete:.2f} eV"
            )
        raise ValueError(
            f"{part.run.source}: the grid ends at {energies[-1]:.4g} eV, and must hold {needed:.4g} eV, the Fermi level, "
            f"{level:.4g} eV, with the empty states near it; {advice}"
        )
    if energies[-1] > fewest.complete - spectra.width:
        warnings.warn(
            f"{fewest.run.source}: the grid ends at {energies[-1]:.4g} eV, but bands are complete only "
            f"below {fewest.complete:.4g} eV, and spectra miss states above; end the grid at "
            f"{math.floor(fewest.complete - TAIL * spectra.width)} or calculate more bands ({fewest.run.more_bands})",
            stacklevel=5,
        )


def _check_shares(runs, shares, normalized):
    worst = int(np.argmin(shares))
    if normalized != {True} and shares[worst] < POORLY_PROJECTED:
        warnings.warn(
            f"{runs[worst].source}: the projections hold only {100 * shares[worst]:.0f} % of the electrons, so that "
            "the spectra of the atoms do not add up to the density of states; --normalize scales them to do so",
            stacklevel=5,
        )


def _same(runs, name):
    found = {getattr(run, name): run.source for run in runs}
    if len(found) > 1:
        raise ValueError(
            f"{', '.join(list(found.values())[:2])}: got levels relative to different zeros ({'; '.join(found)}); "
            "convert runs of different programs apart"
        )
    return next(iter(found))


def _settings(runs):
    """Settings that all runs share; a list where there are a few values, as of meshes."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = list(dict.fromkeys(run.settings[key] for run in runs if key in run.settings))
        found[key] = values[0] if len(values) == 1 else values[:20]
    return found


def described(frames: Frames) -> list[str]:
    """Lines that say what spectra a data set has, for people; none where it has none of calculations."""
    found, energies = frames.attributes, frames.energies
    if energies is None or "fermi_levels_eV" not in found:
        return []
    step = (energies[-1] - energies[0]) / (len(energies) - 1)
    settings, low_high = found["settings"], found["fermi_levels_eV"]
    temperature = settings["electronic_temperature_K"]
    smearing = f"smearing of the runs: {settings.get('smearing', 'none')}"
    chosen = "; --electronic-temperature sets another" if temperature == 0 else ""
    of = "of the Fermi-Dirac smearing" if found["temperature_of_smearing"] else smearing + chosen
    shares = found["projected_shares"]
    how = ", scaled to 100 %" if found["projections_normalized"] else ""
    return [
        f"spectra: {len(energies)} energies from {energies[0]:g} to {energies[-1]:g} eV, step {step:.4g} eV, Gaussian "
        f"exp(-(x/s)^2) with s = {found['dos_width_eV']:.4g} eV; bands are complete below "
        f"{found['bands_complete_below_eV']:.2f} eV",
        f"electrons: {', '.join(f'{symbol} {count:g}' for symbol, count in found['valence_electrons'].items())}; "
        f"temperature {temperature:g} K ({of}); Fermi levels {low_high[0]:.3f} to {low_high[1]:.3f} eV",
        f"projections hold {100 * shares[0]:.1f} to {100 * shares[1]:.1f} % of the electrons{how}",
        *(["spins: runs with two have the sum of both, in states/eV"] if "spins" in settings else []),
    ]
