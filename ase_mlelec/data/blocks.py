"""Trajectories in a data set: runs of frames of which each is similar to the next, as molecular dynamics writes them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from ase import Atoms

NEAR = (
    0.5  # consecutive frames are correlated where they differ less than this times frames that are far apart in a run
)
SHORTEST = 5  # frames; fewer do not show whether they are correlated
JUMP = 5.0  # a step that is longer than this times the median step of its run begins a new run
SHARES = 3  # pieces among which the held-out frames are distributed


def runs(images: Sequence[Atoms]) -> list[range]:
    """Consecutive structures of the same atoms in the same order that are correlated; all others are runs of one.

    Structures are correlated where neighbors in the run differ by less than half of what structures far from each other
    in the run differ, by the root mean square displacement per atom. Structures that were displaced at random, or that
    are many correlation times apart, are not.
    """
    found: list[range] = []
    start = 0
    for end in range(1, len(images) + 1):
        if end == len(images) or not np.array_equal(images[end].numbers, images[start].numbers):
            found += _correlated(images, range(start, end))
            start = end
    return found


def pieces(images: Sequence[Atoms], *, fraction: float) -> list[range]:
    """The runs, cut into pieces so short that ``fraction`` of all structures are three of them or more."""
    longest = max(1, round(fraction * len(images) / SHARES))
    found = []
    for run in runs(images):
        n = -(-len(run) // longest)
        edges = np.linspace(run.start, run.stop, n + 1).round().astype(int).tolist()
        found += [range(a, b) for a, b in pairwise(edges)]
    return found


def _correlated(images, part):
    """Runs within a part of consecutive structures of the same atoms."""
    alone = [range(i, i + 1) for i in part]
    if len(part) < SHORTEST or not len(images[part.start]):
        return alone
    steps = np.array([distance(images[i], images[i + 1]) for i in part[:-1]])
    typical = np.median(steps)
    cuts = [part.start, *(part.start + 1 + np.flatnonzero(steps > JUMP * typical)).tolist(), part.stop]
    found = []
    for a, b in pairwise(cuts):
        half = (b - a) // 2
        far = [distance(images[i], images[i + half]) for i in range(a, a + half)]
        near = steps[a - part.start : b - 1 - part.start]
        together = b - a >= SHORTEST and np.mean(near) < NEAR * np.mean(far)
        found += [range(a, b)] if together else [range(i, i + 1) for i in range(a, b)]
    return found


def distance(first: Atoms, second: Atoms) -> float:
    """Root mean square displacement of the atoms of two structures, Å, to their nearest images and without drift."""
    cell = (first.cell.array + second.cell.array) / 2
    moved = second.positions - first.positions
    if first.cell.rank == 3:
        # fractional coordinates: a strain alone moves no atom
        moved = second.get_scaled_positions(wrap=False) - first.get_scaled_positions(wrap=False)
        moved = (moved - np.where(first.pbc, moved.round(), 0.0)) @ cell
        strain = np.linalg.norm(second.cell.array - first.cell.array) / np.sqrt(3)
    else:
        strain = 0.0
    moved = moved - moved.mean(axis=0)
    return float(np.sqrt((moved**2).sum(axis=1).mean()) + strain)
