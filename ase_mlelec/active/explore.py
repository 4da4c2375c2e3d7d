"""Exploration: structures with scores, from molecular dynamics with the model, from files, or from a pool."""

import itertools
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.io import Trajectory
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import IsotropicMTKNPT

from ase_mlelec.active.config import ActiveConfig
from ase_mlelec.active.scores import score
from ase_mlelec.atomic_write import replacing
from ase_mlelec.calculators.base import MLElecCalculator
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.system import System

TRUSTED, CANDIDATE, BEYOND, UNPHYSICAL, UNREACHED = "trusted", "candidate", "beyond", "unphysical", "unreached"
T_TAU, P_TAU = 100 * units.fs, 1000 * units.fs  # times of thermostat and barostat
HOTTEST = 20.0  # a run beyond this multiple of its temperature has exploded


class Conditions(NamedTuple):
    """Temperature (K), pressure (GPa; None: constant volume) and linear strain of a run."""

    temperature: float
    pressure: float | None
    strain: float

    def __str__(self):
        where = "" if self.pressure is None else f", {self.pressure:g} GPa"
        return f"{self.temperature:g} K{where}" + (f", strain {self.strain:g}" if self.strain else "")


def conditions(config: ActiveConfig) -> list[Conditions]:
    """Combinations of temperatures, pressures and strains, in the order in which runs use them."""
    explore = config.explore
    grid = itertools.product(explore.temperatures, explore.pressures or (None,), explore.strains)
    return [Conditions(*each) for each in grid]


def number_of_runs(config: ActiveConfig) -> int:
    """Runs of molecular dynamics in a round."""
    if config.label.pool:
        return 0
    return len(conditions(config)) if config.explore.runs is None else config.explore.runs


class Run(NamedTuple):
    """Start of a run of molecular dynamics, which depends on the seed and the numbers of round and run alone."""

    atoms: Atoms
    where: Conditions
    generator: np.random.Generator


def run_of(config: ActiveConfig, starts: Sequence[Atoms], n_round: int, k: int) -> Run:
    """Run ``k`` of a round: structure and velocities are drawn, the conditions are taken in turn."""
    grid = conditions(config)
    where = grid[(n_round * number_of_runs(config) + k) % len(grid)]
    generator = np.random.default_rng([config.seed, n_round, k])
    chosen = starts[int(generator.integers(len(starts)))]
    atoms = Atoms(chosen.numbers, chosen.positions, cell=chosen.cell, pbc=chosen.pbc)
    atoms.set_cell(atoms.cell.array * (1 + where.strain), scale_atoms=True)
    spread = np.sqrt(atoms.get_masses() * units.kB * where.temperature)
    atoms.set_momenta(spread[:, None] * generator.standard_normal((len(atoms), 3)))
    return Run(atoms, where, generator)


def frames_in_run(config: ActiveConfig) -> int:
    """Frames that are looked at in a run that does not end early; the first is its start."""
    return config.explore.steps // config.explore.every + 1


def molecular_dynamics(config: ActiveConfig, run: Run, judge: "Judge") -> Iterator[Atoms]:
    """Frames of a run with their scores and states in ``info``; the run ends behind the first that is not to be labeled."""
    explore, atoms = config.explore, run.atoms
    atoms.calc = judge.calc
    dyn = dynamics(config, run)
    path: list[Atoms] = []
    dyn.attach(lambda: path.append(atoms.copy()))
    before = TRUSTED
    for k in range(frames_in_run(config)):
        try:
            if k:
                path.clear()
                dyn.run(explore.every)
            frame = judge(atoms, str(run.where), limited=True)
            if not k and frame.info["state"] == BEYOND:  # a start that the user gave is worth a label, if no run
                yield noted(atoms, str(run.where), frame.info["score"], CANDIDATE)
                return
        except (CalculationFailed, ValueError, FloatingPointError):  # an exploded run has no neighbor list
            frame = noted(atoms, str(run.where), float("inf"), UNPHYSICAL)
        if frame.info["state"] != UNPHYSICAL and atoms.get_temperature() > HOTTEST * run.where.temperature:
            frame.info["state"] = UNPHYSICAL
        if k and before == TRUSTED and frame.info["state"] in (BEYOND, UNPHYSICAL):
            yield from between(path[:-1], judge, str(run.where))
        yield frame
        before = frame.info["state"]
        if before in (BEYOND, UNPHYSICAL):
            return


def dynamics(config: ActiveConfig, run: Run) -> MolecularDynamics:
    """Molecular dynamics of a run: Langevin's at constant volume, or chains of thermostats at constant pressure."""
    step, where = config.explore.timestep * units.fs, run.where
    if where.pressure is None:
        return Langevin(
            run.atoms, step, temperature_K=where.temperature, friction=1 / T_TAU, fixcm=False, rng=run.generator
        )
    pressure = where.pressure * units.GPa
    return IsotropicMTKNPT(
        run.atoms, step, temperature_K=where.temperature, pressure_au=pressure, tdamp=T_TAU, pdamp=P_TAU
    )


def between(path: Sequence[Atoms], judge: "Judge", source: str) -> Iterator[Atoms]:
    """A frame between the trust levels from the steps of a run that went from below to above both, by bisection."""
    low, high = 0, len(path)
    while low < high:
        middle = (low + high) // 2
        frame = judge(path[middle], source, limited=True)
        if frame.info["state"] == CANDIDATE:
            yield frame
            return
        low, high = (middle + 1, high) if frame.info["state"] == TRUSTED else (low, middle)


def noted(atoms: Atoms, source: str, value: float, state: str) -> Atoms:
    """Structure alone, with source, score and state in ``info``; nothing but finite numbers is kept."""
    usable = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
    frame = Atoms(
        atoms.numbers, atoms.positions if usable else None, cell=atoms.cell if usable else None, pbc=atoms.pbc
    )
    frame.info.update(source=source, score=value if np.isfinite(value) else 1e300, state=state)
    return frame


class Judge:
    """Scores and states of structures.

    Parameters
    ----------
    config : ActiveConfig
    calc : calculator of the selected quantity
    """

    def __init__(self, config: ActiveConfig, calc: MLElecCalculator) -> None:
        self.select, self.calc, self.model = config.select, calc, calc.models[0]
        self.closest = closest_pairs(self.model)

    def __call__(self, atoms: Atoms, source: str, *, limited: bool = False) -> Atoms:
        """Frame with its score and state; ``limited``: by the upper trust level and limits of what is physical, too."""
        if limited and self._unphysical(atoms):
            return noted(atoms, source, float("inf"), UNPHYSICAL)
        value = score(self.calc, self.select.quantity, atoms)
        state = TRUSTED if value <= self.select.low else CANDIDATE
        if limited and self.select.low and not value <= self.select.highest:  # nan is beyond, too
            state = BEYOND
        return noted(atoms, source, value, state)

    def _unphysical(self, atoms):
        """Whether atoms are too close, or an environment is too far from the training data."""
        if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
            return True
        if nearest(atoms, self.closest) < self.select.closest:
            return True
        limit = self.select.extrapolation
        return limit is not None and float(self.calc.get_extrapolation(atoms=atoms).max()) > limit


def closest_pairs(model: Model) -> dict[tuple[str, str], float]:
    """Shortest distances in the training data by sorted pair of symbols, Å; {} for models that do not know them."""
    known = model.metadata.get("shortest_distances_A", {})
    return {(pair.split("-")[0], pair.split("-")[1]): float(distance) for pair, distance in known.items()}


def nearest(atoms: Atoms, closest: dict[tuple[str, str], float]) -> float:
    """Smallest distance of two atoms as a share of the shortest one of their species; infinite where there are none."""
    if not closest:
        return float("inf")
    edges = Edges.build(System.from_atoms(atoms), max(closest.values()))
    symbols = np.array(atoms.get_chemical_symbols())
    first, second = symbols[edges.atoms[edges.center].numpy()], symbols[edges.neighbor.numpy()]
    limits = [closest.get((a, b), closest.get((b, a), 0.0)) for a, b in zip(first, second)]
    distances = edges.distances.numpy()
    return min((d / limit for d, limit in zip(distances, limits) if limit), default=float("inf"))


def write_frames(path: str | PathLike, frames: Sequence[Atoms]) -> None:
    """Write structures to a trajectory of ASE, which keeps every bit; atomically."""
    with replacing(path) as partial, Trajectory(str(partial), "w") as file:
        for atoms in frames:
            file.write(atoms)


def read_trajectory(path: Path) -> list[Any]:
    """Structures that ``write_frames`` wrote."""
    with Trajectory(str(path)) as file:
        return [file[k] for k in range(len(file))]
