"""ACE invariants from the atomic basis, as compiled loops: features, or sums with given weights and their derivatives.

The directions of a quadrature are the last axis of all arrays, so that the innermost loops run over neighboring numbers.
The formulas are those of ``couplings``. ``moments`` [C, species n_radial, (l_max + 1)^2] is the atomic basis A.
"""

import numpy as np

from ase_mlelec.compiled import compiled


@compiled
def densities(moments, kinds, rows, found):
    """Densities ``found`` [K, Q] in the directions of ``rows`` [(l_max + 1)^2, Q]; ``kinds`` [K, 2] are (l, column)."""
    n_points = rows.shape[1]
    for k in range(len(kinds)):
        l, column, own = kinds[k, 0], kinds[k, 1], found[k]
        for q in range(n_points):
            own[q] = 0.0
        for lm in range(l * l, (l + 1) * (l + 1)):
            factor, row = moments[column, lm], rows[lm]
            for q in range(n_points):
                own[q] += factor * row[q]


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
    """Products ``found`` [P, Q] of ``factors`` [Q] and one or two rows of ``values``; ``columns`` [P, size] are places."""
    size = columns.shape[1]
    for p in range(len(columns)):
        first, second, own = values[columns[p, 0]], values[columns[p, size - 1]], found[p]
        if size == 1:
            for q in range(len(factors)):
                own[q] = factors[q] * first[q]
        else:
            for q in range(len(factors)):
                own[q] = factors[q] * first[q] * second[q]


@compiled
def sums_of_rows(weights, ends, partner, place, rows, found):
    """Fill the rows p of ``found`` with the sums of ``rows[partner]`` times ``weights[place]`` over ends[p] .. ends[p + 1].

    Their number is a multiple of four, so that four rows are added at a time. The weight at a negative place is zero.
    """
    for p in range(len(found)):
        own = found[p]
        own[:] = 0.0
        for k in range(ends[p], ends[p + 1], 4):
            w0, w1 = weights[place[k]], weights[place[k + 1]] if place[k + 1] >= 0 else 0.0
            w2 = weights[place[k + 2]] if place[k + 2] >= 0 else 0.0
            w3 = weights[place[k + 3]] if place[k + 3] >= 0 else 0.0
            r0, r1, r2, r3 = rows[partner[k]], rows[partner[k + 1]], rows[partner[k + 2]], rows[partner[k + 3]]
            for q in range(len(own)):
                own[q] += w0 * r0[q] + w1 * r1[q] + w2 * r2[q] + w3 * r3[q]


@compiled
def sums_of_products(ends, product, partner, of_products, values, found):
    """Add to the rows k of ``found`` the derivatives by products, ``of_products[product] values[partner]``.

    The sums run over ends[k] .. ends[k + 1], an even number; a negative ``product`` is none.
    """
    for k in range(len(found)):
        own = found[k]
        for i in range(ends[k], ends[k + 1], 2):
            a, b, c, d = (
                of_products[product[i]],
                values[partner[i]],
                of_products[product[i + 1]],
                values[partner[i + 1]],
            )
            if product[i + 1] < 0:
                for q in range(len(own)):
                    own[q] += a[q] * b[q]
            else:
                for q in range(len(own)):
                    own[q] += a[q] * b[q] + c[q] * d[q]


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
    found, constant = np.empty((len(kinds), n_points)), np.ones(n_points)
    first, second = np.empty((len(columns), n_points)), np.empty((len(others), n_points))
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
                if place[k] >= 0:
                    features[c, place[k]] = total


@compiled
def mean_contracted(
    moments, kinds, rows, quadrature, columns, others, forth, back, from_1, from_2, weights, row, sums, of_moments
):
    """Add sums of the features with ``weights[row]`` [F] to ``sums`` [C], and derivatives to ``of_moments``.

    Parameters
    ----------
    kinds : array [K, 2]
        l of the densities, and column of their moments.
    rows : array [(l_max + 1)^2, Q]
        Harmonics in the directions.
    quadrature : array [Q]
        Weights of the directions.
    columns, others : arrays [P, size], [P', size']
        Densities of the first and of the second factor of the products.
    forth, back : tuples
        Arguments of ``sums_of_rows``: partners of the first factors, and of the second.
    from_1, from_2 : tuples
        Arguments of ``sums_of_products`` by density.
    """
    n_points = len(quadrature)
    found, slopes, constant = np.empty((len(kinds), n_points)), np.empty((len(kinds), n_points)), np.ones(n_points)
    first, second = np.empty((len(columns), n_points)), np.empty((len(others), n_points))
    of_first, of_second = np.empty((len(columns), n_points)), np.empty((len(others), n_points))
    for c in range(len(moments)):
        densities(moments[c], kinds, rows, found)
        products(found, columns, constant, first)
        products(found, others, quadrature, second)
        own, total = weights[row[c]], 0.0
        sums_of_rows(own, *forth, second, of_first)
        sums_of_rows(own, *back, first, of_second)
        for p in range(len(others)):
            a, b = second[p], of_second[p]
            for q in range(n_points):
                total += a[q] * b[q]
            for q in range(n_points):
                b[q] *= quadrature[q]
        sums[c] += total
        slopes[:] = 0.0
        sums_of_products(*from_1, of_first, found, slopes)
        sums_of_products(*from_2, of_second, found, slopes)
        for p in range(len(others)):
            if others.shape[1] == 1:
                slopes[others[p, 0]] += of_second[p]
        densities_pull_back(slopes, kinds, rows, of_moments[c])
