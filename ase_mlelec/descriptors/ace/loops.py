"""ACE invariants from the atomic basis, as compiled loops: features, or sums with given weights and their derivatives.

The directions of a quadrature are the last axis of all arrays, so that the innermost loops run over neighboring numbers.
Their number is a multiple of POINTS of ``fast``: four vectors, or more, are summed in registers at a time.
The formulas are those of ``couplings``. ``moments`` [C, species n_radial, (l_max + 1)^2] is the atomic basis A.
"""

import numpy as np

from ase_mlelec.compiled import compiled
from ase_mlelec.lanes import BYTES, empty_rows, every, load, spread, store, total

LANES = BYTES // 8


@compiled
def densities(moments, kinds, rows, found):
    """Densities ``found`` [K, Q] in the directions of ``rows`` [(l_max + 1)^2, Q]; ``kinds`` [K, 2] are (l, column)."""
    width, n_angular = rows.shape[1] // LANES, moments.shape[1]
    for k in range(len(kinds)):
        l, column = kinds[k, 0], kinds[k, 1]
        for q in range(0, width, 4):
            zero = spread(moments, 0) - spread(moments, 0)
            t0 = t1 = t2 = t3 = zero
            for lm in range(l * l, (l + 1) * (l + 1)):
                factor, place = spread(moments, column * n_angular + lm), lm * width + q
                t0 += factor * load(rows, place)
                t1 += factor * load(rows, place + 1)
                t2 += factor * load(rows, place + 2)
                t3 += factor * load(rows, place + 3)
            store(found, k * width + q, t0)
            store(found, k * width + q + 1, t1)
            store(found, k * width + q + 2, t2)
            store(found, k * width + q + 3, t3)


@compiled
def densities_pull_back(of_found, kinds, rows, of_moments):
    """Add the derivatives by the densities [K, Q] to those by the moments."""
    n_points = rows.shape[1]
    for k in range(len(kinds)):
        l, column, own = kinds[k, 0], kinds[k, 1], of_found[k]
        for lm in range(l * l, (l + 1) * (l + 1)):
            row, total = rows[lm], 0.0
            for q in range(n_points):
                total += own[q] * row[q]
            of_moments[column, lm] += total


@compiled
def products(values, columns, factors, found):
    """Products ``found`` [P, Q] of ``factors`` [Q] and two rows of ``values``; ``columns`` [P, 2] are places."""
    for p in range(len(columns)):
        first, second, own = values[columns[p, 0]], values[columns[p, 1]], found[p]
        for q in range(len(factors)):
            own[q] = factors[q] * first[q] * second[q]


@compiled
def copy_block(wide, q, block):
    """Copy four vectors of directions from q on of all rows of ``wide`` [K, Q] to ``block`` [K, 4 vectors]."""
    width = wide.shape[1] // LANES
    for k in range(len(wide)):
        for i in range(4):
            store(block, 4 * k + i, load(wide, k * width + q + i))


@compiled
def fill_seconds(found, others, quadrature, q, second, of_second):
    """Fill the second factors in four vectors of directions from q on; their derivatives are zero so far."""
    for p in range(len(others)):
        a, b = 4 * others[p, 0], 4 * others[p, 1]
        for i in range(4):
            store(second, 4 * p + i, load(quadrature, q + i) * load(found, a + i) * load(found, b + i))
            store(of_second, 4 * p + i, every(load(found, a), 0.0))


@compiled
def contract_firsts(weights, columns, runs, forth, found, second, of_second, slopes):
    """Sum of the weighted products with the second factors, four vectors; adds derivatives by these and by the densities.

    Each first factor is made, used and forgotten. All arrays have four vectors of directions; ``weights`` are in the order
    of ``forth``.
    """
    ends, partner, _ = forth
    zero = every(load(found, 0), 0.0)
    e0 = e1 = e2 = e3 = zero
    for first in range(len(runs) - 1):
        a = 4 * first
        a0, a1, a2, a3 = load(found, a), load(found, a + 1), load(found, a + 2), load(found, a + 3)
        s0 = s1 = s2 = s3 = zero  # derivatives by the first density, but for its factor in the sum
        for p in range(runs[first], runs[first + 1]):
            b = 4 * columns[p, 1]
            b0, b1, b2, b3 = load(found, b), load(found, b + 1), load(found, b + 2), load(found, b + 3)
            f0, f1, f2, f3 = a0 * b0, a1 * b1, a2 * b2, a3 * b3
            t0 = t1 = t2 = t3 = zero
            for k in range(ends[p], ends[p + 1]):
                weight, row = spread(weights, k), 4 * partner[k]
                t0 += weight * load(second, row)
                t1 += weight * load(second, row + 1)
                t2 += weight * load(second, row + 2)
                t3 += weight * load(second, row + 3)
                store(of_second, row, load(of_second, row) + weight * f0)
                store(of_second, row + 1, load(of_second, row + 1) + weight * f1)
                store(of_second, row + 2, load(of_second, row + 2) + weight * f2)
                store(of_second, row + 3, load(of_second, row + 3) + weight * f3)
            store(slopes, b, load(slopes, b) + t0 * a0)
            store(slopes, b + 1, load(slopes, b + 1) + t1 * a1)
            store(slopes, b + 2, load(slopes, b + 2) + t2 * a2)
            store(slopes, b + 3, load(slopes, b + 3) + t3 * a3)
            s0 += t0 * b0
            s1 += t1 * b1
            s2 += t2 * b2
            s3 += t3 * b3
        store(slopes, a, load(slopes, a) + s0)
        store(slopes, a + 1, load(slopes, a + 1) + s1)
        store(slopes, a + 2, load(slopes, a + 2) + s2)
        store(slopes, a + 3, load(slopes, a + 3) + s3)
        e0 += s0 * a0
        e1 += s1 * a1
        e2 += s2 * a2
        e3 += s3 * a3
    return total(e0 + e1 + (e2 + e3))


@compiled
def seconds_pull_back(found, others, quadrature, q, of_second, slopes):
    """Add the derivatives by the densities of the second factors, in four vectors of directions from q on."""
    for p in range(len(others)):
        a, b = 4 * others[p, 0], 4 * others[p, 1]
        for i in range(4):
            own = load(quadrature, q + i) * load(of_second, 4 * p + i)
            store(slopes, a + i, load(slopes, a + i) + own * load(found, b + i))
            store(slopes, b + i, load(slopes, b + i) + own * load(found, a + i))


# all centers --------------------------------------------------------------------------------------------------------


@compiled
def power_features(moments, first, second, degree, start, features):
    """Fill ``features`` [C, F], scalar products of the columns ``first`` and ``second`` with l = ``degree`` [F]."""
    for c in range(len(moments)):
        for f in range(len(first)):
            a, b, l, total = moments[c, first[f]], moments[c, second[f]], degree[f], 0.0
            for lm in range(l * l, (l + 1) * (l + 1)):
                total += a[lm] * b[lm]
            features[c, start + f] = total


@compiled
def power_contracted(moments, first, second, degree, start, weights, row, sums, of_moments):
    """Add sums of the features with ``weights[row]`` [F] to ``sums`` [C], and derivatives to ``of_moments``."""
    for c in range(len(moments)):
        own, whole = weights[row[c]], 0.0
        for f in range(len(first)):
            a, b, l, total = moments[c, first[f]], moments[c, second[f]], degree[f], 0.0
            of_a, of_b, weight = of_moments[c, first[f]], of_moments[c, second[f]], own[start + f]
            for lm in range(l * l, (l + 1) * (l + 1)):
                total += a[lm] * b[lm]
            for lm in range(l * l, (l + 1) * (l + 1)):
                of_a[lm] += weight * b[lm]
            for lm in range(l * l, (l + 1) * (l + 1)):
                of_b[lm] += weight * a[lm]
            whole += weight * total
        sums[c] += whole


@compiled
def mean_features(moments, kinds, rows, quadrature, columns, others, forth, features):
    """Fill ``features`` [C, F], means over directions; arguments as in ``mean_contracted``."""
    n_points, (ends, partner, place) = len(quadrature), forth
    found, constant = empty_rows(len(kinds) + 1, n_points), np.ones(n_points)
    first, second = empty_rows(len(columns), n_points), empty_rows(len(others), n_points)
    found[-1] = 1.0
    for c in range(len(moments)):
        densities(moments[c], kinds, rows, found)
        products(found, columns, constant, first)
        products(found, others, quadrature, second)
        for p in range(len(columns)):
            own = first[p]
            for k in range(ends[p], ends[p + 1]):
                other, total = second[partner[k]], 0.0
                for q in range(n_points):
                    total += own[q] * other[q]
                features[c, place[k]] = total


@compiled
def mean_contracted(moments, kinds, rows, quadrature, columns, runs, others, forth, weights, row, sums, of_moments):
    """Add sums of the features with ``weights[row]`` [F] to ``sums`` [C], and derivatives to ``of_moments``.

    Parameters
    ----------
    kinds : array [K, 2]
        l of the densities, and column of their moments.
    rows : array [(l_max + 1)^2, Q]
        Harmonics in the directions.
    quadrature : array [Q]
        Weights of the directions.
    columns, others : arrays [P, 2], [P', 2]
        Densities that are the first and the second factor of the products; K is the number 1.
    runs : array [K + 1]
        The products whose first density is k are runs[k] .. runs[k + 1].
    forth : tuple (ends [P + 1], second factor, feature)
        Products of the first factor p are ends[p] .. ends[p + 1].
    """
    n_points = len(quadrature)
    found, slopes = empty_rows(len(kinds) + 1, n_points), empty_rows(len(kinds), n_points)
    # four vectors of directions at a time, in few pages of memory
    own, of_own = empty_rows(len(kinds) + 1, 4 * LANES), empty_rows(len(kinds) + 1, 4 * LANES)
    second, of_second = empty_rows(len(others), 4 * LANES), empty_rows(len(others), 4 * LANES)
    found[-1] = 1.0
    weights_of, place = -1, forth[2]
    sorted_weights = np.empty(len(place))
    for c in range(len(moments)):
        if row[c] != weights_of:
            weights_of = row[c]
            for k in range(len(place)):
                sorted_weights[k] = weights[weights_of, place[k]]
        densities(moments[c], kinds, rows, found)
        for q in range(0, n_points // LANES, 4):
            copy_block(found, q, own)
            fill_seconds(own, others, quadrature, q, second, of_second)
            of_own[:] = 0.0
            sums[c] += contract_firsts(sorted_weights, columns, runs, forth, own, second, of_second, of_own)
            seconds_pull_back(own, others, quadrature, q, of_second, of_own)
            slopes[:, q * LANES : (q + 4) * LANES] = of_own[:-1]
        densities_pull_back(slopes, kinds, rows, of_moments[c])
