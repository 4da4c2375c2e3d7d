"""Whether energies have two zeros, as those of two programs, or of two sets of pseudopotentials.

Energies per atom of one composition, and what a sum over species leaves of all, then lie in two groups that are far apart,
each much narrower than their distance. No bond of matter is as strong as FAR; among crystals of one composition and of
similar densities NEAR is beyond what phases differ by.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.data.data_set import Frames
from ase_mlelec.survey.labels import Energies

FAR, NEAR = 10.0, 1.0  # eV/atom
NARROW = 10  # times the width of a group, which two groups are apart
LEAST, SHARE = 2, 0.05  # structures in each group, and part of all


@dataclass(frozen=True)
class TwoZeros:
    """Two groups of energies.

    Attributes
    ----------
    lower, upper : array of int
        Indices of the frames.
    apart : float, eV/atom
        Difference of their medians.
    width : float, eV/atom
        Width of the wider one, without the tenth at either end.
    """

    lower: np.ndarray
    upper: np.ndarray
    apart: float
    width: float


def two_zeros(frames: Frames, energies: Energies | None) -> TwoZeros | None:
    """Find two groups of energies; None without any.

    Parameters
    ----------
    energies : Energies
        Of the frames that count; isolated atoms are none of them.
    """
    if energies is None:
        return None
    found = _groups(energies.frames, energies.rest)
    if found is not None and found.apart > FAR:
        return found
    alike = defaultdict(list)
    for k in energies.frames:
        atoms = frames[k].atoms
        numbers, counts = np.unique(atoms.numbers, return_counts=True)
        if atoms.pbc.all():
            alike[(*numbers.tolist(), *(counts // gcd(*counts.tolist())).tolist())].append(int(k))
    for members in sorted(alike.values(), key=len, reverse=True):
        each = np.array([frames[k].labels["energy"] / len(frames[k].atoms) for k in members])
        found = _groups(np.array(members), each)
        if found is not None and found.apart > NEAR and _similar_densities(frames, found):
            return found
    return None


def _groups(indices: NDArray, values: NDArray) -> TwoZeros | None:
    """Both sides of the largest gap of the values, where they are narrow and large enough."""
    order = np.argsort(values)
    if len(order) < 2 * LEAST:
        return None
    cut = int(np.argmax(np.diff(values[order]))) + 1
    parts = order[:cut], order[cut:]
    if min(map(len, parts)) < max(LEAST, SHARE * len(order)):
        return None
    width = max(float(np.ptp(np.quantile(values[part], [0.1, 0.9]))) for part in parts)
    lower, upper = (float(np.median(values[part])) for part in parts)
    if not upper - lower > NARROW * width:
        return None
    return TwoZeros(indices[parts[0]], indices[parts[1]], upper - lower, width)


def _similar_densities(frames: Frames, found: TwoZeros) -> bool:
    """Whether the volume per atom of half of the smaller group is within those of the other one."""
    lower, upper = (_volumes(frames, each) for each in (found.lower, found.upper))
    small, large = sorted((lower, upper), key=len)
    low, high = np.quantile(large, [0, 1])
    return bool(np.mean((0.9 * low <= small) & (small <= 1.1 * high)) >= 0.5)


def _volumes(frames: Frames, indices: Sequence[int] | NDArray) -> NDArray:
    return np.array([frames[k].atoms.cell.volume / len(frames[k].atoms) for k in indices])
