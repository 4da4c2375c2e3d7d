"""Runs of CP2K as data sets of energies, forces and stress: trajectories of positions, of forces and of the cell."""

import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_mlelec.data.conditions import CHARGED
from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.io.cp2k import (
    BAR,
    NAME,
    charge_of_input,
    check_input_units,
    is_trajectory,
    read_cells,
    read_input_cell,
    read_stress,
    read_trajectory,
)
from ase_mlelec.io.xyz import first_lines

SAME_ENERGY = 1e-6  # eV, in both files of a step
# of a stress, relative to its largest component; less than a bar is rounding, where the cell has relaxed
ASYMMETRY = 1e-3


def without_companions(paths: Iterable[str | PathLike]) -> list:
    """``paths`` without the forces and velocities of trajectories whose positions are there too and have them read."""
    paths = list(paths)
    given = {Path(path).absolute() for path in paths}
    return [path for path in paths if not is_trajectory(path) or _own(path) or _of(path, "pos").absolute() not in given]


def _own(path):
    return NAME.fullmatch(Path(path).name)[2] == "pos"


def _of(path, what):
    """Path of the positions ("pos") or forces ("frc") of the run of a trajectory; compressed if only that is there."""
    path = Path(path)
    project, _, number, ending, _ = NAME.fullmatch(path.name).groups()
    return _packed_or_plain(path.with_name(f"{project}-{what}-{number}.{ending}"))


def _packed_or_plain(plain):
    """Path of a file, or of the compressed one where only that is there."""
    packed = plain.with_name(f"{plain.name}.gz")
    return packed if packed.is_file() and not plain.is_file() else plain


def read_cp2k(path: str | PathLike) -> Frames:
    """Read the steps of PROJECT-pos-1.xyz, with forces of PROJECT-frc-1.xyz beside it and the cells of PROJECT-1.cell.

    Steps belong together by their number and energy; a step without forces has its energy alone. Files in CP2K's FORMAT
    EXTXYZ have the cells themselves. Without a file of cells the cell is that of the only input (``*.inp``) beside them.
    The stress of relaxations is that of PROJECT-1.stress. In molecular dynamics it holds the motion of the atoms as well,
    and is not read.

    Raises
    ------
    ValueError
        For errors of the readers, for files of different runs, and where there is no cell.
    """
    positions, forces = (_of(path, what) for what in ("pos", "frc"))
    project = positions.name.split("-pos-")[0]
    if not _own(path) and not positions.is_file():
        raise ValueError(f"{path}: the positions are not beside it; put {positions.name} there")
    steps = read_trajectory(positions)
    found: dict[int, list] = {}
    for each in read_trajectory(forces) if forces.is_file() else ():
        found.setdefault(each.step, []).append(each)  # a run that goes on from a restart repeats steps
    for each in sorted(positions.parent.glob("*.inp")):
        if each.is_file():
            check_input_units(each, project)
            if charge := charge_of_input(each, project):
                warnings.warn(f"{each}: the cell has a charge of {charge} e, {CHARGED}", stacklevel=4)
    cells, cell, pbc = ({}, None, None) if all(step.cell is not None for step in steps) else _cells(positions)
    stresses = _stresses(positions)
    frames, bare = [], 0
    for k, step in enumerate(steps):
        own = (cells.get(step.step) if cells else cell) if step.cell is None else step.cell
        if own is None:
            raise ValueError(f"{positions}: frame {k}: the file of cells has no step {step.step}; write both as often")
        labels = {"energy": step.energy}
        mine = [each for each in found.get(step.step, []) if abs(each.energy - step.energy) < SAME_ENERGY]
        if found.get(step.step) and (not mine or mine[0].symbols != step.symbols):
            raise ValueError(
                f"{forces}: step {step.step} has another energy or other atoms than in {positions.name}; give one run"
            )
        bare += not mine
        if mine:
            labels["forces"] = mine[-1].rows
        atoms = Atoms(step.symbols, step.rows, cell=own, pbc=pbc or step.pbc)
        if step.step in stresses:
            labels["virial"] = -stresses[step.step] * atoms.get_volume()
        frames.append(Frame(atoms, labels, f"{project}-{k}"))
    if bare:
        warnings.warn(
            f"{positions}: {bare} of {len(frames)} steps have no forces in {forces.name}, and their energy alone is read; "
            "&PRINT / &FORCES of &MOTION writes them",
            stacklevel=4,
        )
    return Frames(frames)


def _stresses(positions: Path) -> dict[int, np.ndarray]:
    """Stress [3, 3] of the steps of a relaxation, eV/Å^3; {} without any, and for molecular dynamics, with a warning."""
    project, _, number, *_ = NAME.fullmatch(positions.name).groups()  # type: ignore[union-attr]
    file = _packed_or_plain(positions.with_name(f"{project}-{number}.stress"))
    if not file.is_file():
        return {}
    found, moves = read_stress(file)
    if moves or "time" in first_lines(positions)[1]:
        warnings.warn(
            f"{file}: not read, as CP2K adds the motion of the atoms to the stress in molecular dynamics; training goes on "
            "without stress",
            stacklevel=5,
        )
        return {}
    for step, stress in ((step, each) for step, repeats in found.items() for each in repeats):
        if np.abs(stress - stress.T).max() > max(ASYMMETRY * np.abs(stress).max(), BAR):
            raise ValueError(f"{file}: the stress of step {step} is not symmetric; let CP2K write it again")
    # of a step that a restart repeats it is not known which structure has which stress
    return {step: (each[0] + each[0].T) / 2 for step, each in found.items() if len(each) == 1 and each[0].any()}


def _cells(positions: Path) -> tuple[dict, np.ndarray | None, list[bool] | None]:
    """Cells by step, or {}; the cell of all steps, or None; and the directions in which it repeats."""
    project, _, number, *_ = NAME.fullmatch(positions.name).groups()  # type: ignore[union-attr]
    file = _packed_or_plain(positions.with_name(f"{project}-{number}.cell"))
    inputs = [
        each
        for each in sorted(positions.parent.glob("*.inp"))
        if each.is_file() and "&CELL" in each.read_text(errors="replace").upper()
    ]
    if file.is_file():
        return read_cells(file), None, [True] * 3
    if len(inputs) == 1:
        return {}, *read_input_cell(inputs[0])
    raise ValueError(
        f"{positions}: a trajectory of CP2K, whose cell is in another file; put {file.name} or the one input (*.inp) beside "
        f"it, where there are {len(inputs)} inputs"
    )
