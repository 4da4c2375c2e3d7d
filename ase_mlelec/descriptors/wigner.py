"""Constant tables of the bispectrum: polynomials of the matrix elements of SU(2), and quadrature rules on SO(3).

Orders are doubled: j = 0 .. twojmax.  An element g of SU(2) is a pair (a, b) with |a|^2 + |b|^2 = 1, and u_j(g) is a
matrix (j+1) x (j+1), row mb, column ma, the coefficient of s^(j-ma) t^ma in (a* s - b* t)^(j-mb) (b s + a t)^mb, times
sqrt[(j-ma)! ma! / ((j-mb)! mb!)].  It is a^p b^q times a polynomial in |a|^2 - |b|^2, where p = ma + mb - j,
q = mb - ma, and a^-p stands for conj(a)^p.  Because u_j[j-mb, j-ma] = (-1)^(mb+ma) conj(u_j[mb, ma]), the elements with
p > 0, or p = 0 and q >= 0, say all: (j+1)^2 real numbers.

Sources: Thompson et al. 2015 (J. Comput. Phys. 285, 316); Lebedev and Laikov 1999 (Dokl. Math. 59, 477).
"""
import math
from dataclasses import dataclass

import numpy as np
from scipy.integrate import lebedev_rule

LEBEDEV_DEGREES = (3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 35, 41, 47, 53, 59, 65)


def triples(twojmax):
    """Tensor of the components' (j1, j2, j) in LAMMPS' order, int array [F, 3]."""
    return np.array([(j1, j2, j) for j1 in range(twojmax + 1) for j2 in range(j1 + 1)
                     for j in range(j1 - j2, min(twojmax, j1 + j2) + 1, 2) if j >= j1])


def element_polynomial(j, mb, ma):
    """Power series in s = |a|^2 - |b|^2 of u_j[mb, ma] / (a^p b^q), for p >= 0."""
    norm = math.sqrt(math.factorial(j - ma) * math.factorial(ma) / (math.factorial(j - mb) * math.factorial(mb)))
    above, below = np.polynomial.Polynomial([0.5, 0.5]), np.polynomial.Polynomial([0.5, -0.5])    # |a|^2 and |b|^2
    total = np.polynomial.Polynomial([0.0])
    for i in range(max(0, ma - mb), min(j - mb, ma) + 1):
        weight = (-1)**i * math.comb(j - mb, i) * math.comb(mb, ma - i)
        total += weight * above**(j - mb - i) * below**min(i, mb - ma + i)
    coefficients = np.zeros((j - abs(ma + mb - j) - abs(mb - ma)) // 2 + 1)
    found = norm * total.coef[:len(coefficients)]
    coefficients[:len(found)] = found
    return coefficients


def elements(twojmax):
    """[(p, q, part)] of the real numbers that a degree p + |q| adds, by degree; part 0 is Re, 1 is Im."""
    keys = [(p, q, part) for degree in range(twojmax + 1) for p in range(degree + 1)
            for q in sorted({degree - p, p - degree}) for part in (0, 1)]
    return [(p, q, part) for p, q, part in keys if (p or q >= 0) and (p or q or not part)]


def place_of(p, q, j):
    """Row mb and column ma of the element with phases a^p b^q."""
    return (j + p + q) // 2, (j + p - q) // 2


@dataclass(frozen=True)
class MomentTables:
    """From the moments M_n = sum_k a^p s^n (x) b^q to the real numbers of U_j, packed as [U]: 506 for twojmax 10.

    The rows of the left factor are Re and Im of a^p s^n, by n, then p; the columns of the right one those of b^q.

    first, second, sign : for every n, the two moments (flattened) that make Re or Im of a^p b^q, and their sign
    series : series[v][n], coefficients of s^n for the columns of v, in which j = p + |q| + 2 v
    orders : int [U], j of every column; multiplicity : 2, or 1 for an element that is its own mirror image
    identity : 1 for the diagonal of U_j, else 0
    """
    first: list
    second: list
    sign: list
    series: list
    orders: np.ndarray
    multiplicity: np.ndarray
    identity: np.ndarray
    columns: dict


def moment_tables(twojmax):
    rows, right = {}, {}
    for n in range(twojmax // 2 + 1):
        for p in range(twojmax - 2 * n + 1):
            for part in (0, 1) if p else (0,):
                rows[n, p, part] = len(rows)
    for q in range(twojmax + 1):
        for part in (0, 1) if q else (0,):
            right[q, part] = len(right)
    first, second, sign, series, packed = [], [], [], [], []
    for n in range(twojmax // 2 + 1):
        keys = elements(twojmax - 2 * n)
        pairs = [_two_products(*key) for key in keys]
        first.append(np.array([rows[n, p, a] * len(right) + right[abs(q), b]
                               for (p, q, _), ((a, b), _, _) in zip(keys, pairs)]))
        second.append(np.array([rows[n, p, a] * len(right) + right[abs(q), b]
                                for (p, q, _), (_, (a, b), _) in zip(keys, pairs)]))
        sign.append(np.array([float(s) for *_, s in pairs]))
        polynomials = [element_polynomial(j, *place_of(p, q, j)) for p, q, _ in keys for j in [p + abs(q) + 2 * n]]
        series.append(np.array(polynomials).T)
        packed += [(p, q, part, p + abs(q) + 2 * n) for p, q, part in keys]
    columns = {(j, *place_of(p, q, j), part): k for k, (p, q, part, j) in enumerate(packed)}
    return MomentTables(first, second, sign, series, np.array([j for *_, j in packed]),
                        np.array([1.0 if p == q == 0 else 2.0 for p, q, *_ in packed]),
                        np.array([float(q == part == 0) for _, q, part, _ in packed]), columns)


def _two_products(p, q, part):
    """Re or Im of a^p b^q (q < 0: conj(b)^-q) as x + sign y; x, y are given as (part of a^p, part of b^|q|)."""
    if p == 0:
        return (0, part), (0, 0), 0
    if q == 0:
        return (part, 0), (0, 0), 0
    if part == 0:
        return (0, 0), (1, 1), -1 if q > 0 else 1
    return (1, 0), (0, 1), 1 if q > 0 else -1


@dataclass(frozen=True)
class GroupTables:
    """Triple products f_j1 f_j2 f_j that share one quadrature rule with n_gamma x n_sphere points.

    f_j(g) = sum_mb,ma conj(U_j[mb, ma]) u_j[mb, ma](g) is real.  Its Fourier series in the angle gamma has j+1 real
    coefficients (planes), each a sum over U.  The cube root of the quadrature weight is multiplied in.

    js : the orders; gather[j] : int [(j+1) 2(j+1)], columns of U; sphere[j] : [j+1, 2(j+1), n_sphere];
    gamma[j] : [n_gamma, j+1]
    pairs : [(j1, j2)]; thirds : [j], all even; wanted : {(j1, j2, j) sorted: place in the table pairs x thirds}
    """
    js: list
    gather: dict
    sphere: dict
    gamma: dict
    pairs: list
    thirds: list
    wanted: dict


def group_tables(wanted, columns):
    """Tables for the triples ``wanted`` (sorted, none with a zero); exact for their largest total degree."""
    limit = max(sum(triple) for triple in wanted) // 2
    points, weights = lebedev_rule(next(degree for degree in LEBEDEV_DEGREES if degree >= limit))
    n_gamma = limit + 1
    root = np.cbrt(weights / (4 * np.pi * n_gamma))
    js = sorted({j for triple in wanted for j in triple})
    gather, sphere, gamma = {}, {}, {}
    for j in js:
        gather[j], sphere[j] = _sphere_stage(j, points, columns)
        sphere[j] *= root
        gamma[j] = _gamma_stage(j, n_gamma)
    pairs, thirds, places = _cover(wanted)
    return GroupTables(js, gather, sphere, gamma, pairs, thirds, places)


def _on_sphere(j, points):
    """u_j[mb, ma] at gamma = 0 for the points [3, S] of the sphere: complex [j+1, j+1, S]."""
    z, phase = points[2], np.exp(0.5j * np.arctan2(points[1], points[0]))
    a, b = np.sqrt(np.clip((1 + z) / 2, 0, 1)) * phase, np.sqrt(np.clip((1 - z) / 2, 0, 1)) * phase
    s = z.astype(complex)
    out = np.zeros((j + 1, j + 1, len(z)), dtype=complex)
    for mb in range(j + 1):
        for ma in range(j + 1):
            p, q = ma + mb - j, mb - ma
            if p < 0:
                continue
            phases = a**p * (b**q if q >= 0 else b.conj()**-q)
            out[mb, ma] = phases * np.polynomial.polynomial.polyval(s, element_polynomial(j, mb, ma))
            out[j - mb, j - ma] = (-1)**(mb + ma) * out[mb, ma].conj() if p else out[j - mb, j - ma]
    return out


def _sphere_stage(j, points, columns):
    """Columns of U and coefficients, per plane: m = 0 (j even), then cos and sin of every m > 0."""
    u = _on_sphere(j, points)
    gather, table = [], []
    for ma in range((j + 1) // 2, j + 1):
        names, re, im = [], [], []
        for mb in range(j + 1):
            mirrored = (j, mb, ma, 0) not in columns
            place = (j - mb, j - ma) if mirrored else (mb, ma)
            sign = (-1.0)**(mb + ma) if mirrored else 1.0
            has_im = (j, *place, 1) in columns
            names += [columns[j, *place, 0], columns[j, *place, int(has_im)]]
            flip = (-sign if mirrored else sign) * has_im
            re += [sign * u[mb, ma].real, flip * u[mb, ma].imag]
            im += [sign * u[mb, ma].imag, -flip * u[mb, ma].real]
        planes = [re] if 2 * ma == j else [2 * np.array(re), 2 * np.array(im)]
        table += planes
        gather += names * len(planes)
    return np.array(gather), np.array(table)


def _gamma_stage(j, n_gamma):
    angle = 2 * np.pi * np.arange(n_gamma) / n_gamma
    planes = []
    for ma in range((j + 1) // 2, j + 1):
        m = ma - j / 2
        planes += [np.cos(m * angle), -np.sin(m * angle)] if m else [np.ones(n_gamma)]
    return np.stack(planes, axis=1)


def _cover(wanted):
    """Few pairs of orders whose products with a third, even order make all ``wanted`` triples."""
    thirds = sorted({j for triple in wanted for j in triple if j % 2 == 0})
    pairs, places, open_ = [], {}, set(wanted)
    while open_:
        ways = {}
        for triple in open_:
            for k in range(3):
                if triple[k] % 2 == 0:
                    ways.setdefault(tuple(triple[:k] + triple[k + 1:]), set()).add(triple)
        pair = max(sorted(ways), key=lambda key: len(ways[key]))
        for triple in ways[pair]:
            rest = list(triple)
            for j in pair:
                rest.remove(j)
            places[triple] = len(pairs) * len(thirds) + thirds.index(rest[0])
        pairs.append(pair)
        open_ -= ways[pair]
    return pairs, thirds, places
