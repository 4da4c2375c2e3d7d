"""Whether energies have the scale of the forces, and of the numbers of atoms, where no two structures are alike.

A pair potential that is fitted to the forces alone,

    F_i = sum_j phi'(r_ij) (r_j - r_i) / r_ij,    E = 1/2 sum_ij phi(r_ij),

predicts how energies vary among structures of the same atoms. Where it explains most of the forces, measured energies vary
0.6 to 2.7 times as much (the public data of ``benchmarks/public.py``, the data of the shipped models, and liquid water), and
a fraction of that where they are energies per atom, or in another unit.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.survey.derivatives import Factor
from ase_mlelec.survey.labels import fit_energies
from ase_mlelec.survey.neighbors import neighbor_vectors

CUTOFF, FUNCTIONS, RIDGE = 5.0, 12, 1e-8  # Å; functions of the distance for each pair of species
MOST_ATOMS, MOST, FEWEST = 2000, 150, 10  # atoms and structures that are looked at, and needed
MOST_PAIRS = 15  # of species
ALIKE = 4  # structures of the same atoms, of which energies are compared
EXPLAINED, CORRELATED = 0.65, 0.5  # least share of the squared forces, and correlation of the energies
STRAINED, STILL = 0.2, 0.05  # largest deviation from the median volume; least forces, relative to those of all
LARGER = 1.5  # ratio of the largest and the smallest number of atoms by which energies per atom are told
TELLING = 0.2  # ratio of deviations of energies as energies per atom, and as those of structures


def by_sizes(frames: Frames, *, without: list[int]) -> bool:
    """Whether energies do not grow with the number of atoms: whether they are energies per atom.

    Parameters
    ----------
    without : list of int
        Frames that are left out, such as isolated atoms.
    """
    as_totals = fit_energies(frames, without=without)
    if as_totals is None or len(as_totals.frames) < FEWEST:
        return False
    sizes = np.array([len(frames[k].atoms) for k in as_totals.frames])
    if sizes.max() < LARGER * sizes.min():
        return False
    scaled = [{"energy": len(frames[k].atoms) * frames[k].labels["energy"]} for k in as_totals.frames]
    as_shares = fit_energies(Frames([Frame(frames[k].atoms, each) for k, each in zip(as_totals.frames, scaled)]))
    return as_shares is not None and bool(abs(as_shares.rest).mean() < TELLING * abs(as_totals.rest).mean())


def by_forces(frames: Frames, *, without: list[int]) -> Factor | None:
    """Variation of energies divided by that of a pair potential fitted to the forces, at constant volume.

    Parameters
    ----------
    without : list of int
        Frames that are left out, such as isolated atoms.

    Returns
    -------
    Factor or None
        Ratio of the two standard deviations. Its error is, relative to it, what the pair potential leaves of the squares of
        forces and energies. None where the pair potential does not explain forces or energies, or where
        there are too few structures of the same atoms.
    """
    found = groups(frames, set(without))
    chosen = [frames[k] for members in found for k in members]
    species = sorted({int(number) for frame in chosen for number in frame.atoms.numbers})
    pairs = list(combinations_with_replacement(species, 2))
    if len(chosen) < FEWEST or not 0 < len(pairs) <= MOST_PAIRS:
        return None
    rows = [terms(frame, pairs) for frame in chosen]
    coefficients, explained = coefficients_of(rows)
    predicted = np.array([energy for energy, *_ in rows]) @ coefficients
    if explained < EXPLAINED:
        return None
    ends = np.cumsum([len(members) for members in found])[:-1]
    measured = np.array([frame.labels["energy"] for frame in chosen], dtype=float)
    n_atoms = np.array([len(frame.atoms) for frame in chosen], dtype=float)
    volumes = np.array([_volume(frame.atoms) for frame in chosen]) / n_atoms
    columns = [measured, predicted, n_atoms * volumes, n_atoms * volumes**2]
    columns = [np.concatenate([part - part.mean() for part in np.split(column, ends)]) for column in columns]
    # the forces do not tell the energy of a change of the volume
    strains = np.stack(columns[2:], axis=1)
    one, other = (column - strains @ np.linalg.lstsq(strains, column, rcond=None)[0] for column in columns[:2])
    sizes = np.linalg.norm(one), np.linalg.norm(other)
    correlation = float(one @ other / (sizes[0] * sizes[1])) if all(sizes) else 0.0
    if abs(correlation) < CORRELATED:
        return None
    value = float(np.copysign(sizes[0] / sizes[1], correlation))
    return Factor(
        value, abs(value) * max(0.0, 1 - explained * correlation**2), len(chosen), value * float(n_atoms.mean())
    )


def groups(frames: Frames, without: set[int]) -> list[list[int]]:
    """Some frames with energies and forces, list of lists of indices, each of four or more structures of the same atoms."""
    usable = [k for k, frame in enumerate(frames) if {"energy", "forces"} <= frame.labels.keys() and k not in without]
    usable = [k for k in usable if len(frames[k].atoms) > 1]
    forces = {k: float(np.sqrt(np.mean(np.square(frames[k].labels["forces"])))) for k in usable}
    least = STILL * np.sqrt(np.mean(np.square([*forces.values()]))) if forces else 0.0
    alike = defaultdict(list)
    for k in usable:
        if forces[k] > least:  # others are zero by symmetry, but for noise
            alike[(bool(frames[k].atoms.pbc.all()), *sorted(frames[k].atoms.numbers))].append(k)
    every = [_of_usual_volume(frames, members) for members in alike.values()]
    every = sorted((members for members in every if len(members) >= ALIKE), key=len, reverse=True)
    found: list[list[int]] = []
    left, structures = MOST_ATOMS, MOST
    for members in every:
        n_atoms = len(frames[members[0]].atoms)
        most = min(structures, left // n_atoms if found else max(left // n_atoms, FEWEST))
        if most >= ALIKE:
            some = np.unique(np.linspace(0, len(members) - 1, min(len(members), most)).round().astype(int))
            found.append([members[k] for k in some])
            left, structures = left - len(some) * n_atoms, structures - len(some)
    return found


def _of_usual_volume(frames, members):
    volumes = np.array([_volume(frames[k].atoms) for k in members])
    return [members[k] for k in np.flatnonzero(abs(volumes - np.median(volumes)) <= STRAINED * np.median(volumes))]


def _volume(atoms):
    return float(atoms.cell.volume) if atoms.pbc.all() else 0.0


def terms(frame: Frame, pairs: Sequence[tuple[int, int]]) -> tuple[NDArray, NDArray, NDArray]:
    """Derivatives of energy [P] and of forces [3N, P] by the coefficients of the pair potential, and the forces [3N]."""
    atoms: Atoms = frame.atoms
    center, neighbor, vectors, distance = neighbor_vectors(atoms, CUTOFF)
    values, slopes = functions(distance)
    slopes = slopes[:, None] * (vectors / distance[:, None])[:, :, None]  # [E, 3, K]
    first, second = (f(atoms.numbers[center], atoms.numbers[neighbor]) for f in (np.minimum, np.maximum))
    energy = np.zeros((len(pairs), FUNCTIONS))
    forces = np.zeros((len(pairs), len(atoms), 3, FUNCTIONS))
    for p, (one, other) in enumerate(pairs):
        here = (first == one) & (second == other)
        energy[p] = values[here].sum(axis=0) / 2
        np.add.at(forces[p], center[here], slopes[here])
    columns = np.moveaxis(forces, 0, 2).reshape(3 * len(atoms), -1)
    return energy.ravel(), columns, np.asarray(frame.labels["forces"], dtype=float).ravel()


def functions(distance: NDArray) -> tuple[NDArray, NDArray]:
    """Gaussians [E, K] that end at the cutoff with their slope, and their derivatives."""
    step = CUTOFF / (FUNCTIONS + 2)
    x = (distance[:, None] - step * np.arange(2, FUNCTIONS + 2)) / step
    inside = np.maximum(1 - (distance / CUTOFF) ** 2, 0.0)[:, None]
    bell = np.exp(-(x**2) / 2)
    return bell * inside**2, bell * (-x / step * inside**2 - 4 * inside * distance[:, None] / CUTOFF**2)


def coefficients_of(rows: Sequence[tuple[NDArray, NDArray, NDArray]]) -> tuple[NDArray, float]:
    """Coefficients of the pair potential of least squares, and the share of the squared forces in it, from ``terms``."""
    matrix: NDArray = np.zeros((rows[0][1].shape[1],) * 2)
    right, total = np.zeros(len(matrix)), 0.0
    for _, columns, forces in rows:
        weight = 1 / np.mean(forces**2)  # each structure counts alike
        matrix, right = matrix + weight * columns.T @ columns, right + weight * columns.T @ forces
        total += weight * forces @ forces
    size = float(np.trace(matrix)) / len(matrix)
    if not size:
        return right, 0.0
    coefficients = np.linalg.solve(matrix + RIDGE * size * np.eye(len(matrix)), right)
    left = total - 2 * coefficients @ right + coefficients @ matrix @ coefficients
    return coefficients, float(1 - left / total)
