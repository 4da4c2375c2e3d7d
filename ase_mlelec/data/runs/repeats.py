"""Runs that are named twice by different paths, such as a folder and an output in it, which are read once."""

import os
import warnings
from collections.abc import Sequence
from itertools import combinations
from os import PathLike
from pathlib import Path

import numpy as np

from ase_mlelec.data.data_set import Frames, same_structure
from ase_mlelec.data.runs.steps import is_run
from ase_mlelec.data.runs.vasp import is_vasp

SAME_ENERGY = 1e-5  # eV; outputs of a run differ by their number of digits


def without_repeats(parts: Sequence[Frames], paths: Sequence[Sequence[str | PathLike]]) -> list[Frames]:
    """``parts`` without structures with energies that another part has as well, with a warning.

    Only runs in the same folder, or in a folder and one below it, are compared. Of two the structure with more labels
    stays, or the first one.

    Parameters
    ----------
    parts : sequence of Frames
    paths : sequence of sequence of path
        The paths of each part.
    """
    parts, folders = list(parts), [{_folder(path) for path in each if _is_run(path)} for each in paths]
    for i, j in combinations(range(len(parts)), 2):
        if not any(
            one == other or one in other.parents or other in one.parents for one in folders[i] for other in folders[j]
        ):
            continue
        less, more = sorted((j, i), key=lambda k: len(parts[k].counts))  # stable: of equals the later one is left out
        twice = _repeated(parts[less], parts[more])
        if twice:
            names = [", ".join(map(str, paths[k])) for k in (less, more)]
            warnings.warn(
                f"{names[0]}: {len(twice)} of {len(parts[less])} structures are those of {names[1]}, and are read once",
                stacklevel=4,
            )
            rest = [frame for k, frame in enumerate(parts[less]) if k not in twice]
            parts[less] = Frames(rest, parts[less].energies, parts[less].attributes)
    return parts


def _is_run(path):
    return Path(path).is_dir() or is_run(path) or is_vasp(path)


def _folder(path):
    """Real path of a folder, or of the folder of a file."""
    real = Path(os.path.realpath(path))
    return real if real.is_dir() else real.parent


def _repeated(frames, others):
    """Indices of the frames whose structure and energy are among the others."""
    others = [other for other in others if "energy" in other.labels]
    energies = np.array([other.labels["energy"] for other in others])
    return {
        k
        for k, frame in enumerate(frames)
        if "energy" in frame.labels
        and any(
            same_structure(frame.atoms, others[j].atoms)
            for j in np.flatnonzero(abs(energies - frame.labels["energy"]) < SAME_ENERGY)
        )
    }
