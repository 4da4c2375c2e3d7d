"""Products of densities as sums over l and m, in tables for the compiled loops of ``loops``.

A density rho = sum_m A_lm Y_lm has the coefficients A_lm; the product of two has, for every degree L, the coefficients ::

    B_LM = sum_m1m2 G_m1m2M A_l1m1 A'_l2m2,   G = mean over directions of Y_l1m1 Y_l2m2 Y_LM

(the Gaunt coefficients), and the mean over directions of a product of two such factors is the scalar product of their
coefficients, as the Y_LM are orthonormal. Most G are zero. The torch reference, ``couplings``, sums over directions instead.

Reference: Drautz, Phys. Rev. B 99, 014104 (2019).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ase_mlelec.descriptors.ace.couplings import DirectionMeans, PowerSpectrum, half_sphere
from ase_mlelec.descriptors.harmonics import harmonics

NOTHING = 1e-9  # of the largest coefficient: rounding


class Factors(NamedTuple):
    """Factors of products: a density, or a product of two.

    Attributes
    ----------
    places : array [P, 4]
        Where the coefficients of the first density begin in the flattened [column, lm], their number, and the same of the
        second, for which a place behind all columns has the number 1.
    shapes : array [P, 4]
        Where the rows of both tables begin, the number of coefficients, and where they begin among those of all factors.
    forth : tuple (ends, place, value)
        By coefficient: G of the products A_l1m1 A'_l2m2 that add up to it.
    back : tuple (ends, place, value)
        By product A_l1m1 A'_l2m2: G of the coefficients to which it is added.
    """

    places: NDArray
    shapes: NDArray
    forth: tuple
    back: tuple


class Products(NamedTuple):
    """Scalar products of first and second factors.

    Attributes
    ----------
    first, second : Factors
    ends : array [P + 1]
        Products of the first factor p are ends[p] .. ends[p + 1].
    features : array [F]
        Place of every product among the features.
    term_ends : array [F + 1]
        Its terms.
    terms : array [T, 3]
        Where coefficients begin, in those of the first factor and in those of all second ones, and their number.
    """

    first: Factors
    second: Factors
    ends: NDArray
    features: NDArray
    term_ends: NDArray
    terms: NDArray


@functools.lru_cache(maxsize=4096)
def _gaunt(l_1: int, l_2: int, degree: int) -> NDArray:
    """G [(2 l_1 + 1) (2 l_2 + 1), 2 L + 1] of harmonics as in DirectionMeans, with orthonormal ones of degree L."""
    points, weights = half_sphere(l_1 + l_2 + degree)
    rows = harmonics(torch.as_tensor(points), max(l_1, l_2, degree)).numpy()
    first, second, third = (rows[l * l : (l + 1) ** 2] / (2 * l + 1) ** 0.5 for l in (l_1, l_2, degree))
    values = np.einsum("aq,bq,cq,q->abc", first, second, third, weights).reshape(-1, 2 * degree + 1)
    return values / np.sqrt(_square(degree))


def _square(l: int) -> float:
    """Mean square over directions of the harmonics of degree l in DirectionMeans."""
    points, weights = half_sphere(2 * l)
    row = harmonics(torch.as_tensor(points), l).numpy()[l * l] / (2 * l + 1) ** 0.5
    return float(weights @ row**2)


def _degrees(l_1: int, l_2: int) -> range:
    """Degrees of the product of two densities."""
    return range(abs(l_1 - l_2), l_1 + l_2 + 1, 2)


def _rows_of(matrix: NDArray) -> tuple[list, list, list]:
    """(numbers of entries, their columns, their values) of the rows of a sparse matrix."""
    chosen = np.abs(matrix) > NOTHING * max(np.abs(matrix).max(initial=0), 1e-300)
    return chosen.sum(axis=1).tolist(), np.nonzero(chosen)[1].tolist(), matrix[chosen].tolist()


class _Table:
    """Rows of sparse matrices, one matrix after the other."""

    def __init__(self) -> None:
        self.counts: list[int] = [0]
        self.places: list[int] = []
        self.values: list[float] = []

    def add(self, matrix: NDArray) -> int:
        """Add a matrix; number of its first row."""
        start = len(self.counts) - 1
        counts, places, values = _rows_of(matrix)
        self.counts += counts
        self.places += places
        self.values += values
        return start

    def arrays(self) -> tuple:
        return np.cumsum(self.counts), np.array(self.places, np.int32), np.array(self.values, float)


def _factors(
    columns: NDArray, kinds: NDArray, degrees: Sequence[Sequence[int]], n_angular: int, n_columns: int, unit: bool
) -> Factors:
    """Factors of ``columns`` [P, 1 or 2] of densities with ``kinds`` [K, 2] of (l, column), in the ``degrees`` of each.

    ``unit``: the coefficients of a single density are A_lm themselves, not those of orthonormal functions.
    """
    forth, back, known = _Table(), _Table(), {}
    places, shapes, start = [], [], 0
    for own, wanted in zip(columns, degrees):
        l = [int(kinds[k, 0]) for k in own]
        key = (*l, tuple(wanted))
        if key not in known:
            if len(l) == 2:
                parts = [np.zeros(((2 * l[0] + 1) * (2 * l[1] + 1), 0)), *(_gaunt(*l, degree) for degree in wanted)]
                matrix = np.concatenate(parts, axis=1)
            else:
                matrix = np.eye(2 * l[0] + 1) * (1.0 if unit else _square(l[0]) ** 0.5)
            known[key] = forth.add(matrix.T), back.add(matrix), matrix.shape[1]
        densities = [(kinds[k, 1] * n_angular + kinds[k, 0] ** 2, 2 * kinds[k, 0] + 1) for k in own]
        places.append([*densities[0], *(densities[1] if len(l) == 2 else (n_columns * n_angular, 1))])
        shapes.append([*known[key], start])
        start += known[key][2]
    of_places, of_shapes = (np.array(each, dtype=np.int64).reshape(-1, 4) for each in (places, shapes))
    return Factors(of_places, of_shapes, forth.arrays(), back.arrays())


def products_of(
    part: DirectionMeans | PowerSpectrum, n_radial: int, n_species: int, l_max: int, start: int
) -> Products:
    """Tables of the features of a coupling, which begin at ``start``.

    Their moments have ``n_radial`` functions for each of ``n_species``, and degrees up to ``l_max``.
    """
    first, second, place, kinds = _densities_of(part, n_radial, n_species)
    unit, l = isinstance(part, PowerSpectrum), kinds[:, 0]
    order = np.argsort(place // len(second), kind="stable")
    of_first, of_second = np.divmod(place[order], len(second))
    common = [
        sorted(set(_own(l[first[p]])) & set(_own(l[second[q]]))) for p, q in zip(of_first.tolist(), of_second.tolist())
    ]
    needed: tuple = tuple([set() for _ in each] for each in (first, second))
    for p, q, degrees in zip(of_first, of_second, common):
        needed[0][p].update(degrees)
        needed[1][q].update(degrees)
    wanted = [
        [sorted(each) if columns.shape[1] == 2 else _own(l[own]) for own, each in zip(columns, sets)]
        for columns, sets in zip((first, second), needed)
    ]
    one, other = (
        _factors(columns, kinds, each, (l_max + 1) ** 2, n_species * n_radial, unit)
        for columns, each in zip((first, second), wanted)
    )
    starts = [[dict(zip(each, np.cumsum([0, *(2 * degree + 1 for degree in each)]))) for each in own] for own in wanted]
    terms = [
        (starts[0][p][degree], other.shapes[q, 3] + starts[1][q][degree], 2 * degree + 1)
        for p, q, degrees in zip(of_first, of_second, common)
        for degree in degrees
    ]
    ends, term_ends = (
        np.cumsum([0, *counts]) for counts in (np.bincount(of_first, minlength=len(first)), map(len, common))
    )
    return Products(one, other, ends, order + start, term_ends, np.array(terms, dtype=np.int64).reshape(-1, 3))


def _own(l):
    """Degrees of the coefficients of a factor of densities of degrees ``l``."""
    return list(_degrees(int(l[0]), int(l[1]))) if len(l) == 2 else [int(l[0])]


def _densities_of(part, n_radial, n_species):
    """First and second factors of a coupling, places of its products among all pairs of both, (l, column) of densities."""
    if isinstance(part, PowerSpectrum):
        n = n_species * part.n_radial
        rest, second = np.divmod(part.places.numpy(), n)
        l, first = np.divmod(rest, n)
        columns = [l * n + first, l * n + second]
        used, number = np.unique(np.concatenate(columns), return_inverse=True)
        one, other = number[: len(first), None], number[len(first) :, None]
        firsts, of_first = np.unique(one, return_inverse=True)
        seconds, of_second = np.unique(other, return_inverse=True)
        found = firsts[:, None], seconds[:, None], of_first.ravel() * len(seconds) + of_second.ravel()
    else:
        first, second = part.first.T.numpy(), part.second.T.numpy()
        used, number = np.unique(np.concatenate([first.ravel(), second.ravel()]), return_inverse=True)
        found = (
            number[: first.size].reshape(first.shape),
            number[first.size :].reshape(second.shape),
            part.places.numpy(),
        )
    l, rest = np.divmod(used, n_species * part.n_radial)
    kinds = np.stack([l, rest // part.n_radial * n_radial + rest % part.n_radial], axis=1)
    return *found, kinds
