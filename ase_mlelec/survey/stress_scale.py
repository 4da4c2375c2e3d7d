"""Whether stresses have the sign, the unit and the order of elements that forces say.

The pair potential that ase_mlelec.survey.energy_scale fits to the forces has the virial

    W_ab = -1/2 sum_ij phi'(r_ij) r_a r_b / r_ij    (r from i to j)

Its part without trace, which no change of the volume enters, varies among structures of the same atoms as measured ones do:
0.3 to 2 times as much in the data of ``benchmarks/public.py`` and those of the shipped models.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement, permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.survey.derivatives import Factor
from ase_mlelec.survey.energy_scale import CUTOFF, EXPLAINED, FEWEST, MOST_PAIRS, coefficients_of, functions, groups
from ase_mlelec.survey.energy_scale import terms as force_terms
from ase_mlelec.survey.neighbors import neighbor_vectors

CORRELATED = 0.8  # of the diagonal elements, beyond which they tell sign and unit
# least correlation of the other elements in an order that the data have, and the most in ASE's, relative to it: one
# of the three elements may be in place
IN_ORDER, NOT_IN_ORDER = 0.6, 0.5
ASE_ORDER = [(1, 2), (0, 2), (0, 1)]
NAMES = ("yz", "xz", "xy")
PROGRAMS = {("xy", "yz", "xz"): " (VASP's)", ("xy", "xz", "yz"): " (LAMMPS')"}


class StressScale(NamedTuple):
    """What forces say on stresses.

    Attributes
    ----------
    factor : Factor or None
        Measured over predicted variation of the diagonal elements; None where they are not correlated.
    order : str
        Order of the other elements, where they are in another one than ASE's; "" elsewhere.
    """

    factor: Factor | None
    order: str


def stress_by_forces(frames: Frames, *, without: Sequence[int]) -> StressScale:
    """Compare stresses with those of a pair potential fitted to the forces.

    Parameters
    ----------
    without : list of int
        Frames that are left out, such as isolated atoms.
    """
    nothing = StressScale(None, "")
    have = [k for k, frame in enumerate(frames) if "virial" not in frame.labels or not frame.atoms.pbc.all()]
    members = groups(frames, {*without, *have})
    chosen = [frames[k] for each in members for k in each]
    species = sorted({int(number) for frame in chosen for number in frame.atoms.numbers})
    pairs = list(combinations_with_replacement(species, 2))
    if len(chosen) < FEWEST or not 0 < len(pairs) <= MOST_PAIRS:
        return nothing
    coefficients, explained = coefficients_of([force_terms(frame, pairs) for frame in chosen])
    if explained < EXPLAINED:
        return nothing
    predicted = np.array([(virial_terms(frame, pairs) @ coefficients).reshape(3, 3) for frame in chosen])
    measured = np.array([frame.labels["virial"] for frame in chosen], dtype=float)
    ends = np.cumsum([len(each) for each in members])[:-1]
    (diagonal, others), (own, own_others) = (_parts(each, ends) for each in (predicted, measured))
    correlation = _correlation(diagonal, own)
    if abs(correlation) < CORRELATED:
        return nothing
    value = float(np.copysign(np.linalg.norm(own) / np.linalg.norm(diagonal), correlation))
    factor = Factor(value, abs(value) * max(0.0, 1 - explained * correlation**2), len(chosen), value)
    return StressScale(factor, _order(others, own_others * np.sign(value)))


def virial_terms(frame: Frame, pairs: Sequence[tuple[int, int]]) -> NDArray:
    """Derivatives [9, P] of the virial by the coefficients of the pair potential."""
    atoms = frame.atoms
    center, neighbor, vectors, distance = neighbor_vectors(atoms, CUTOFF)
    slopes = functions(distance)[1] / distance[:, None]
    first, second = (f(atoms.numbers[center], atoms.numbers[neighbor]) for f in (np.minimum, np.maximum))
    found = []
    for one, other in pairs:
        here = (first == one) & (second == other)
        found.append(-np.einsum("ea,eb,ek->abk", vectors[here], vectors[here], slopes[here]) / 2)
    return np.concatenate(found, axis=2).reshape(9, -1)


def _parts(virials, ends):
    """Diagonal elements without the trace, and other elements in ASE's order, [frames, 3] each, less the means of groups."""
    diagonal = np.diagonal(virials, axis1=1, axis2=2)
    parts = diagonal - diagonal.mean(axis=1, keepdims=True), np.stack([virials[:, i, j] for i, j in ASE_ORDER], axis=1)
    return tuple(np.concatenate([each - each.mean(axis=0) for each in np.split(part, ends)]) for part in parts)


def _correlation(one, other):
    sizes = np.linalg.norm(one) * np.linalg.norm(other)
    return float((one * other).sum() / sizes) if sizes else 0.0


def _order(predicted, measured):
    """Name of the order in which the elements fit, or "" where ASE's fits or none does."""
    # few strained structures do not decide alone
    sizes = np.sqrt(np.linalg.norm(np.hstack([predicted, measured]), axis=1, keepdims=True))
    predicted, measured = (
        np.divide(each, sizes, where=sizes > 0, out=np.zeros_like(each)) for each in (predicted, measured)
    )
    fits = {order: _correlation(predicted[:, order], measured) for order in permutations(range(3))}
    best = max(fits, key=lambda order: fits[order])
    if fits[best] < IN_ORDER or fits[0, 1, 2] > NOT_IN_ORDER * fits[best]:
        return ""
    names = tuple(NAMES[k] for k in best)  # what stands where yz, xz and xy are read
    return ", ".join(names) + PROGRAMS.get(names, "")
