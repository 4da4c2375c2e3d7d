"""What the structures of a data set are: species, distances, density, isolated atoms, duplicates, trajectories."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_mlelec.data.blocks import runs
from ase_mlelec.survey.neighbors import CUTOFF, neighbor_distances

DECIMALS = 4  # of positions and cells in Å; structures that agree in these are duplicates


@dataclass(frozen=True)
class Structures:
    """Findings on the structures of a data set.

    Attributes
    ----------
    n_frames : int
    n_atoms : array [F] of int
        Atoms of every structure.
    species : list of str
    formulas : Counter
        Structures by reduced formula.
    periodic : int
        Number of structures that repeat in space, in any direction.
    nearest : dict of (float, int)
        Shortest distance in Å, and index of its structure, by pair of species such as ("O", "H").
    shortest : array [F], Å
        Shortest distance within every structure; infinite where none is within 6 Å.
    neighbors : float
        Mean number of neighbors of an atom within 6 Å.
    volume : float or None
        Median volume per atom of structures with a cell in three directions, Å^3.
    isolated : list of int
        Structures that are a single atom without neighbors.
    detached : list of int
        Other structures with atoms without neighbors.
    duplicates : list of tuple of int
        Structures that are the same.
    trajectories : list of range
        Runs of two or more consecutive structures of which each is similar to the next.
    """

    n_frames: int
    n_atoms: np.ndarray
    species: list
    formulas: Counter
    periodic: int
    nearest: dict
    shortest: np.ndarray
    neighbors: float
    volume: float | None
    isolated: list
    detached: list
    duplicates: list
    trajectories: list


def survey_structures(images: Sequence[Atoms], *, progress: Callable[[Iterable], Iterable] = iter) -> Structures:
    """Look at the structures of a data set.

    Parameters
    ----------
    images : sequence of Atoms
    progress : callable
        Wraps the iteration over ``images``, such as a progress bar.
    """
    nearest: dict[tuple, tuple] = {}
    isolated: list[int] = []
    detached: list[int] = []
    total, shortest = 0, np.full(len(images), np.inf)
    for k, atoms in enumerate(progress(images)):
        center, neighbor, distance = neighbor_distances(atoms)
        total += len(center)
        shortest[k] = distance.min(initial=np.inf)
        for pair, value in _by_pair(atoms.numbers, center, neighbor, distance):
            if value < nearest.get(pair, (np.inf, 0))[0]:
                nearest[pair] = (value, k)
        if len(np.unique(center)) < len(atoms):
            (isolated if len(atoms) == 1 else detached).append(k)
    n_atoms = np.array([len(atoms) for atoms in images])
    volumes = [atoms.get_volume() / len(atoms) for atoms in images if atoms.cell.rank == 3 and atoms.pbc.all()]
    return Structures(
        n_frames=len(images),
        n_atoms=n_atoms,
        species=sorted({symbol for atoms in images for symbol in atoms.symbols}),
        formulas=Counter(atoms.symbols.get_chemical_formula(empirical=True) for atoms in images),
        periodic=sum(bool(atoms.pbc.any()) for atoms in images),
        nearest={_symbols(pair): nearest[pair] for pair in sorted(nearest)},
        shortest=shortest,
        neighbors=total / max(int(n_atoms.sum()), 1),
        volume=float(np.median(volumes)) if volumes else None,
        isolated=isolated,
        detached=detached,
        duplicates=duplicates(images),
        trajectories=[run for run in runs(images) if len(run) > 1],
    )


def _by_pair(numbers, center, neighbor, distance):
    """Iterate over (pair of atomic numbers, shortest distance)."""
    a, b = numbers[center], numbers[neighbor]
    key = np.minimum(a, b) * 1000 + np.maximum(a, b)
    for each in np.unique(key):
        yield divmod(int(each), 1000), float(distance[key == each].min())


def _symbols(pair):
    return tuple(Atoms([*pair]).get_chemical_symbols())


def duplicates(images: Iterable[Atoms]) -> list[tuple[int, ...]]:
    """Groups of structures with the same atoms, positions and cell within 1e-4 Å, each a tuple of indices."""
    found = defaultdict(list)
    for k, atoms in enumerate(images):
        arrays = (np.round(array, DECIMALS) + 0.0 for array in (atoms.positions, atoms.cell.array))  # no -0
        found[(atoms.numbers.tobytes(), atoms.pbc.tobytes(), *(array.tobytes() for array in arrays))].append(k)
    return [tuple(each) for each in found.values() if len(each) > 1]


__all__ = ["CUTOFF", "Structures", "duplicates", "survey_structures"]
