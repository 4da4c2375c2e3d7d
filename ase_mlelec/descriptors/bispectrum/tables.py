"""Constant tables of the bispectrum: polynomials of the matrix elements of SU(2), and quadrature rules on SO(3).

Orders are doubled: j = 0 .. twojmax. An element g of SU(2) is a pair (a, b) with ``|a|^2`` + ``|b|^2`` = 1, and u_j(g)
is a matrix (j+1) x (j+1), row mb, column ma, the coefficient of s^(j-ma) t^ma in (``a*`` s - ``b*`` t)^(j-mb) (b s + a
t)^mb, times sqrt[(j-ma)! ma! / ((j-mb)! mb!)]. It is a^p b^q times a polynomial in ``|a|^2`` - ``|b|^2``, where p = ma
+ mb - j, q = mb - ma, and a^-p stands for conj(a)^p. Because u_j[j-mb, j-ma] = (-1)^(mb+ma) conj(u_j[mb, ma]), the
elements with p > 0, or p = 0 and q >= 0, say all: (j+1)^2 real numbers.

References: Thompson et al. 2015 (J. Comput. Phys. 285, 316); Lebedev and Laikov 1999 (Dokl. Math. 59, 477).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import lebedev_rule

SMALL_RULE = 11  # degree of the smaller quadrature rule
LEBEDEV_DEGREES = (3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 35, 41, 47, 53, 59, 65)


def triples(twojmax: int) -> NDArray:
    """(j1, j2, j) of the components in LAMMPS' order, int array [F, 3]."""
    return np.array(
        [
            (j1, j2, j)
            for j1 in range(twojmax + 1)
            for j2 in range(j1 + 1)
            for j in range(j1 - j2, min(twojmax, j1 + j2) + 1, 2)
            if j >= j1
        ]
    )


@cache
def element_polynomial(j: int, mb: int, ma: int) -> NDArray:
    """Coefficients of the power series in s = ``|a|^2`` - ``|b|^2`` of u_j[mb, ma] / (a^p b^q), for p >= 0."""
    norm = math.sqrt(math.factorial(j - ma) * math.factorial(ma) / (math.factorial(j - mb) * math.factorial(mb)))
    degree = (j - abs(ma + mb - j) - abs(mb - ma)) // 2
    total = np.zeros(degree + 1)
    for i in range(max(0, ma - mb), min(j - mb, ma) + 1):
        weight = (-1) ** i * math.comb(j - mb, i) * math.comb(mb, ma - i)
        above, below = j - mb - i, min(i, mb - ma + i)  # powers of |a|^2 = (1 + s)/2 and |b|^2 = (1 - s)/2
        total += (
            weight
            / 2**degree
            * np.convolve(
                [math.comb(above, k) for k in range(above + 1)],
                [(-1) ** k * math.comb(below, k) for k in range(below + 1)],
            )
        )
    return norm * total


def elements(twojmax: int) -> list:
    """[(p, q, part)] of the real numbers that a degree p + ``|q|`` adds, by degree; part 0 is Re, 1 is Im."""
    keys = [
        (p, q, part)
        for degree in range(twojmax + 1)
        for p in range(degree + 1)
        for q in sorted({degree - p, p - degree})
        for part in (0, 1)
    ]
    return [(p, q, part) for p, q, part in keys if (p or q >= 0) and (p or q or not part)]


def place_of(p: int, q: int, j: int) -> tuple:
    """Row mb and column ma of the element with phases a^p b^q."""
    return (j + p + q) // 2, (j + p - q) // 2


@dataclass(frozen=True)
class MomentTables:
    """From the moments M_n = sum_k w_k a^p s^n b^q to the real numbers of all U_j, packed as [U]: 506 for twojmax 10.

    Moments are products of Re and Im of a^p s^n (row: by n, then p) with those of b^q (column; there are n_columns,
    padded to a multiple of four, with which matrix products are almost twice as fast). V_n are the Re and Im of sum_k
    w_k a^p s^n b^q with q of both signs, by n, then degree p + ``|q|``; [V] has as many numbers as [U].

    Attributes
    ----------
    first, second, sign
        V = M[first] + sign M[second], with flattened M.
    back, back_second, back_sign
        M = V[back] + sign V[back_second] of the transposed map; index V means zero.
    series
        series[v][n], coefficients of V_n in the part v of [U], which has the elements with j = p + ``|q|`` + 2 v.
    orders : int [U]
        j of every number.
    multiplicity : [U]
        2, or 1 for an element that is its own mirror image.
    identity : [U]
        1 where U_j has the identity matrix, else 0.
    columns : dict
        {(j, mb, ma, part): place in [U]}.
    """

    n_columns: int
    first: np.ndarray
    second: np.ndarray
    sign: np.ndarray
    back: np.ndarray
    back_second: np.ndarray
    back_sign: np.ndarray
    series: list
    orders: np.ndarray
    multiplicity: np.ndarray
    identity: np.ndarray
    columns: dict


def moment_tables(twojmax: int) -> MomentTables:
    powers = [(n, p, part) for n in range(twojmax // 2 + 1) for p, part in _parts(twojmax - 2 * n)]
    row = {key: k for k, key in enumerate(powers)}
    column = {key: k for k, key in enumerate(_parts(twojmax))}
    n_columns = -(-len(column) // 4) * 4
    series, packed = [], []
    uses: list = []  # (place in V, moment, sign), one or two for each number of V
    for n in range(twojmax // 2 + 1):
        keys = elements(twojmax - 2 * n)
        for p, q, part in keys:
            place = len(uses)
            uses.append(
                [(place, row[n, p, i] * n_columns + column[abs(q), k], sign) for i, k, sign in _products(p, q, part)]
            )
        series.append(
            np.array(
                [element_polynomial(p + abs(q) + 2 * n, *place_of(p, q, p + abs(q) + 2 * n)) for p, q, _ in keys]
            ).T
        )
        packed += [(p, q, part, p + abs(q) + 2 * n) for p, q, part in keys]
    by_moment: list[list] = [[] for _ in range(len(row) * n_columns)]
    for use in uses:
        for place, moment, sign in use:
            by_moment[moment].append((place, sign))
    unused = len(uses)
    back = [sorted(users, key=lambda user: -user[1]) + 2 * [(unused, 0.0)] for users in by_moment]
    columns = {(j, *place_of(p, q, j), part): k for k, (p, q, part, j) in enumerate(packed)}
    return MomentTables(
        n_columns=n_columns,
        first=np.array([use[0][1] for use in uses]),
        second=np.array([use[-1][1] for use in uses]),
        sign=np.array([use[1][2] if len(use) > 1 else 0.0 for use in uses]),
        back=np.array([users[0][0] for users in back]),
        back_second=np.array([users[1][0] for users in back]),
        back_sign=np.array([users[1][1] for users in back]),
        series=series,
        orders=np.array([j for *_, j in packed]),
        multiplicity=np.array([1.0 if p == q == 0 else 2.0 for p, q, *_ in packed]),
        identity=np.array([float(q == part == 0) for _, q, part, _ in packed]),
        columns=columns,
    )


def _parts(n):
    """(k, part) of the rows Re and Im of z^0 .. z^n; z^0 has no Im."""
    return [(k, part) for k in range(n + 1) for part in ((0, 1) if k else (0,))]


def _products(p, q, part):
    """Re or Im of a^p b^q (q < 0: conj(b)^-q) as [(part of a^p, part of b^``|q|``, sign)], the first sign being +."""
    if p == 0:
        return [(0, part, 1.0)]
    if q == 0:
        return [(part, 0, 1.0)]
    if part == 0:
        return [(0, 0, 1.0), (1, 1, -1.0 if q > 0 else 1.0)]
    return [(1, 0, 1.0), (0, 1, 1.0 if q > 0 else -1.0)]


@dataclass(frozen=True)
class GroupTables:
    """Triple products f_j1 f_j2 f_j that share one quadrature rule, of G angles and S points of the sphere.

    f_j(g) = sum conj(U_j) u_j(g) is real, and a Fourier series in the angle gamma. Its j+1 real coefficients, the
    planes, are sums over U. The cube root of the quadrature weights is multiplied in.

    Attributes
    ----------
    js
        The orders, even ones first.
    sphere : dict
        {j: [j+1, 2 (j+1), S]}, from the columns of U named in sphere_columns to the planes.
    gamma : dict
        {j: [G, j+1]}, from the planes to the angles.
    runs : [(first, low, high)]
        Products of js[first] with each of js[low:high] are the pairs.
    n_thirds
        The first of js, all even: what the pairs are multiplied with.
    places : dict
        {(j1, j2, j) sorted: place in the flattened table pairs x thirds}.
    """

    js: list
    sphere: dict
    gamma: dict
    runs: list
    n_thirds: int
    places: dict

    @property
    def n_pairs(self) -> int:
        return sum(high - low for _, low, high in self.runs)


def group_tables(twojmax: int, columns: Mapping[tuple[int, ...], int]) -> list[GroupTables]:
    """GroupTables that together hold all triples of orders without a zero.

    High degrees need many points but are few: triples of a degree up to 22 (twojmax 10: 66 of 80) get a rule of their
    own, but for those that the other one yields at no cost.
    """
    wanted = {tuple(sorted(map(int, triple))) for triple in triples(twojmax) if min(triple) > 0}
    groups = []
    for lowest in (2 * SMALL_RULE + 1, 0):
        now = {triple for triple in wanted if sum(triple) >= lowest}
        if now:
            groups.append(_group(now, columns))
            wanted -= groups[-1].places.keys()
    return groups


def _group(wanted, columns):
    limit = max(sum(triple) for triple in wanted) // 2
    points, weights = lebedev_rule(next(degree for degree in LEBEDEV_DEGREES if degree >= limit))
    n_gamma = limit + 1
    root = np.cbrt(weights / (4 * np.pi * n_gamma))
    js = sorted({j for triple in wanted for j in triple}, key=lambda j: (j % 2, j))
    n_thirds = sum(j % 2 == 0 for j in js)
    pairs = _cover(wanted)
    runs, places = [], {}
    for pair in sorted(sorted((js.index(i), js.index(j))) for i, j in pairs):
        if runs and runs[-1][0] == pair[0] and runs[-1][2] == pair[1]:
            runs[-1] = (*runs[-1][:2], pair[1] + 1)
        else:
            runs.append((pair[0], pair[1], pair[1] + 1))
    made = [(js[first], js[k]) for first, low, high in runs for k in range(low, high)]
    for k, pair in enumerate(made):
        for m, third in enumerate(js[:n_thirds]):
            places.setdefault(tuple(sorted((*pair, third))), k * n_thirds + m)
    return GroupTables(
        js,
        {j: _sphere_stage(j, points, columns) * root for j in js},
        {j: _gamma_stage(j, n_gamma) for j in js},
        runs,
        n_thirds,
        places,
    )


def _cover(wanted):
    """Few pairs of orders whose products with a third, even order make all ``wanted`` triples."""
    pairs, missing = [], set(wanted)
    while missing:
        ways = {}
        for triple in missing:
            for k in range(3):
                if triple[k] % 2 == 0:
                    ways.setdefault(triple[:k] + triple[k + 1 :], set()).add(triple)
        pairs.append(max(sorted(ways), key=lambda pair: len(ways[pair])))
        missing -= ways[pairs[-1]]
    return pairs


def plane_rows(j: int) -> list:
    """[(ma, part)] of the planes of order j: ma = j/2 has one, every larger ma cos and sin."""
    return [(ma, part) for ma in range((j + 1) // 2, j + 1) for part in ((0, 1) if 2 * ma != j else (0,))]


def plane_columns(j: int, ma: int, columns: Mapping[tuple[int, ...], int]) -> tuple:
    """Places in [U] of Re and Im of U_j[mb, ma], mb = 0..j, with signs: int and float arrays [2 (j+1)].

    Where only the mirror image is stored, the sign says so; numbers that are zero or stored twice have sign 0.
    """
    names, signs = [], []
    for mb in range(j + 1):
        mirrored = (j, mb, ma, 0) not in columns
        place = (j - mb, j - ma) if mirrored else (mb, ma)
        sign = 0.0 if mirrored and 2 * ma == j else (-1.0) ** (mb + ma) if mirrored else 1.0
        has_im = (j, *place, 1) in columns
        names += [columns[j, *place, 0], columns[j, *place, int(has_im)]]
        signs += [sign, (-sign if mirrored else sign) * has_im]
    return np.array(names), np.array(signs)


def on_sphere(j, points):
    """u_j[mb, ma], ma >= j/2, at gamma = 0 for the points [3, S] of the sphere: complex [j+1, j+1, S]."""
    phase = np.exp(0.5j * np.arctan2(points[1], points[0]))
    a, b = (np.sqrt(np.clip((1 + sign * points[2]) / 2, 0, 1)) * phase for sign in (1, -1))
    out = np.zeros((j + 1, j + 1, points.shape[1]), dtype=complex)
    for mb in range(j + 1):
        for ma in range(j + 1):
            p, q = ma + mb - j, mb - ma
            if p < 0:
                continue
            phases = a**p * (b**q if q >= 0 else b.conj() ** -q)
            out[mb, ma] = phases * np.polynomial.polynomial.polyval(points[2], element_polynomial(j, mb, ma))
            if p > 0:
                out[j - mb, j - ma] = (-1) ** (mb + ma) * out[mb, ma].conj()
    return out


def _sphere_stage(j, points, columns):
    """[j+1, 2 (j+1), S]: cos and sin coefficients of f_j in gamma from the numbers named by plane_columns."""
    u, planes = on_sphere(j, points), []
    for ma, part in plane_rows(j):
        signs = plane_columns(j, ma, columns)[1].reshape(-1, 2, 1)
        values = np.stack([u[:, ma].imag, -u[:, ma].real] if part else [u[:, ma].real, u[:, ma].imag], axis=1)
        twice = np.array([1.0 if 2 * ma == j == 2 * mb else 2.0 for mb in range(j + 1)])[:, None, None]
        planes.append((twice * signs * values).reshape(2 * (j + 1), -1))
    return np.array(planes)


def _gamma_stage(j, n_gamma):
    """[G, j+1]: cos and -sin of m gamma, m = ma - j/2."""
    angle = 2 * np.pi * np.arange(n_gamma) / n_gamma
    return np.stack(
        [-np.sin((ma - j / 2) * angle) if part else np.cos((ma - j / 2) * angle) for ma, part in plane_rows(j)], axis=1
    )
