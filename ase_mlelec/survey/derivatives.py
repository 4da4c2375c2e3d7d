"""Whether forces and stresses are the derivatives of the energies, from pairs of similar structures.

For two structures of the same atoms, the trapezoidal rule along the straight path between them gives

    E2 - E1 = -1/2 (F1 + F2) . u - 1/2 (W1 + W2) : e + third order

with forces F, virials W = -dE/d(strain), strain e between the cells, and displacements u of the atoms beyond the strain.
Measured energy differences divided by each of the two terms are 1 where labels are right, and the ratio of two units
otherwise.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.data.data_set import Frame, Frames

MANY = 120  # structures of one kind of which all pairs are considered; of more, consecutive ones as well
FARTHEST = 0.4  # Å, root mean square of u
LARGEST_STRAIN, NO_STRAIN = 0.08, 1e-5
TURN = 0.02  # rotation between cells, in rad, above which forces of the two do not refer to the same axes
SAME = 1e-4  # Å, root mean square of u
LEAST = 2e-3  # eV; smaller energies are lost in rounding and convergence
FEWEST, CERTAIN_PAIRS = 4, 8  # pairs for a statement, and for one on wrong units


@dataclass(frozen=True)
class Pairs:
    """Pairs of similar structures.

    Attributes
    ----------
    frames : array [M, 2] of int
    energy : array [M], eV
        Measured energy differences.
    work : array [M], eV
        Energy differences by the forces.
    strain_work : array [M], eV
        Energy differences by the virials; NaN where one of the structures has none.
    strained : array [M] of bool
        Whether the two cells differ.
    size : array [M], Å
        Root mean square of u.
    """

    frames: np.ndarray
    energy: np.ndarray
    work: np.ndarray
    strain_work: np.ndarray
    strained: np.ndarray
    size: np.ndarray

    def unstrained(self) -> "Pairs":
        """The pairs of one cell."""
        return Pairs(*(getattr(self, field.name)[~self.strained] for field in fields(self)))


@dataclass(frozen=True)
class Factor:
    """Measured energy differences divided by those that the derivatives say.

    Attributes
    ----------
    value : float
        Weighted median.
    error : float
        Its statistical error, from the scatter.
    n_pairs : int
    per_atom : float
        Weighted median of the ratios times the numbers of atoms.
    """

    value: float
    error: float
    n_pairs: int
    per_atom: float


def find_pairs(frames: Frames, *, progress: Callable[[Iterable], Iterable] = iter) -> Pairs:
    """Find pairs of similar structures with energies and forces."""
    rows = []
    for i, j in progress(candidates(frames)):
        row = compare(frames[i], frames[j])
        if row is not None:
            rows.append(((i, j), *row))
    empty = [np.zeros((0, 2), dtype=int), *(np.zeros(0) for _ in range(5))]
    ends, energy, work, strain_work, strained, size = map(np.array, zip(*rows, strict=True)) if rows else empty
    return Pairs(ends, energy, work, strain_work, strained.astype(bool), size)


def candidates(frames: Frames) -> list[tuple[int, int]]:
    """Pairs of frames with energies and forces, of the same atoms in the same order."""
    alike = defaultdict(list)
    for k, frame in enumerate(frames):
        if {"energy", "forces"} <= frame.labels.keys() and len(frame.atoms) > 1:
            alike[(frame.atoms.numbers.tobytes(), frame.atoms.pbc.tobytes())].append(k)
    found: set[tuple[int, int]] = set()
    for members in alike.values():
        found.update(pairwise(members))
        some = np.unique(np.linspace(0, len(members) - 1, min(len(members), MANY)).round().astype(int))
        found.update(combinations([members[k] for k in some], 2))
    return sorted(found)


def compare(first: Frame, second: Frame) -> tuple | None:
    """Energy difference, work of the forces, work of the virials, whether the cells differ, and displacement.

    Returns
    -------
    tuple or None
        None for structures that differ too much.
    """
    moved = moves(first.atoms, second.atoms)
    if moved is None:
        return None
    displacement, strain, rotation = moved
    size = float(np.sqrt((displacement**2).sum(axis=1).mean()))
    if size > FARTHEST or abs(strain).max() > LARGEST_STRAIN:
        return None
    forces = first.labels["forces"] + second.labels["forces"] @ rotation
    work = -0.5 * float((forces * displacement).sum())
    strain_work = np.nan
    if "virial" in first.labels and "virial" in second.labels:
        strain_work = -0.5 * float(((first.labels["virial"] + second.labels["virial"]) * strain).sum())
    strained = bool(abs(strain).max() > NO_STRAIN)
    return second.labels["energy"] - first.labels["energy"], work, strain_work, strained, size


def moves(first, second) -> tuple[NDArray, NDArray, NDArray] | None:
    """(displacements u [N, 3] in Å, strain [3, 3], rotation [3, 3] of the second structure onto the first), or None.

    Crystals are compared in fractional coordinates. Molecules are turned onto each other.
    """
    if first.pbc.any() and first.cell.rank == 3 and second.cell.rank == 3:
        change = np.linalg.solve(first.cell.array, second.cell.array)  # r2 = r1 @ change
        # strain on the way from one cell to the other, to second order: log(change)
        logarithm = 2 * np.linalg.solve(change + np.eye(3), change - np.eye(3))
        strain, turn = (logarithm + logarithm.T) / 2, (logarithm - logarithm.T) / 2
        if abs(turn).max() > TURN:
            return None
        fractional = second.cell.scaled_positions(second.positions) - first.cell.scaled_positions(first.positions)
        fractional -= np.where(first.pbc, fractional.round(), 0.0)
        return fractional @ (first.cell.array + second.cell.array) / 2, strain, np.eye(3)
    if first.pbc.any() or second.pbc.any():
        return None
    a, b = (atoms.positions - atoms.positions.mean(axis=0) for atoms in (first, second))
    u, _, v = np.linalg.svd(b.T @ a)
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))]) @ v  # Kabsch 1976, Acta Cryst. A32, 922
    return b @ rotation - a, np.zeros((3, 3)), rotation


def factors(pairs: Pairs, frames: Frames) -> tuple[Factor | None, Factor | None]:
    """Factors of the forces and of the stresses, each None where there are too few pairs for it.

    The forces are compared in pairs of one cell, the stresses in pairs of different cells. Where all cells differ, both
    are found together.
    """
    work, strain_work = pairs.work, pairs.strain_work
    forces = _factor(pairs, frames, pairs.energy, work, ~pairs.strained)
    usable = pairs.strained & np.isfinite(strain_work)
    if forces is None and usable.sum() >= 2 * FEWEST:
        slopes = _least_absolute(np.stack([work, strain_work], axis=1)[usable], pairs.energy[usable])
        forces = _factor(pairs, frames, pairs.energy - slopes[1] * strain_work, work, usable)
    explained = work * (1.0 if forces is None else forces.value)
    rest = pairs.energy - explained
    # what the forces explain should not dominate: its errors would
    stress = _factor(pairs, frames, rest, strain_work, usable & (2 * abs(explained) < abs(rest)))
    return forces, stress


def _least_absolute(columns, measured):
    """Coefficients of least absolute deviations, by reweighted least squares."""
    weights = np.ones(len(measured))
    for _ in range(20):
        root = np.sqrt(weights)
        scale = np.linalg.norm(columns, axis=0) + 1e-300  # units of the columns may differ by factors of a thousand
        solution = np.linalg.lstsq(root[:, None] * columns / scale, root * measured, rcond=None)[0] / scale
        weights = 1 / np.maximum(abs(measured - columns @ solution), LEAST / 10)
    return solution


def _factor(pairs, frames, measured, predicted, usable):
    """Weighted median of the ratios of ``usable`` pairs."""
    # what is the same structure again, perhaps at another place, tells nothing new
    again = pairs.frames[(pairs.size < SAME) & ~pairs.strained, 1]
    usable = usable & (abs(measured) > LEAST) & (abs(predicted) > 0) & ~np.isin(pairs.frames, again).any(axis=1)
    chosen = np.flatnonzero(usable)
    if len(chosen) < FEWEST:
        return None
    near = chosen[pairs.size[chosen] <= max(np.quantile(pairs.size[chosen], 0.25), 0.05)]
    chosen = near if len(near) >= CERTAIN_PAIRS else chosen
    ratio, weight = measured[chosen] / predicted[chosen], abs(predicted[chosen])
    value = weighted_median(ratio, weight)
    away = abs(ratio - value)
    scatter = 1.4826 * max(weighted_median(away, weight), float(np.median(away)))  # as if normally distributed
    n_atoms = np.array([len(frames[k].atoms) for k in pairs.frames[chosen, 0]])
    independent = len(np.unique(pairs.frames[chosen]))  # pairs of the same frames have common errors
    return Factor(value, float(scatter / np.sqrt(independent)), len(chosen), weighted_median(ratio * n_atoms, weight))


def weighted_median(values: Sequence[float] | NDArray, weights: Sequence[float] | NDArray) -> float:
    """Value at which half of the weight is below."""
    order = np.argsort(values)
    total = np.cumsum(np.asarray(weights)[order])
    return float(np.asarray(values)[order][np.searchsorted(total, total[-1] / 2)])
