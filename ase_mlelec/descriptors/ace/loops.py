"""ACE invariants as compiled loops over the centers: features, or sums of features with given weights and their gradient.

What has the length of the edges of a center, or of the directions of a quadrature, is the last axis of all arrays, so
that the innermost loops run over neighboring numbers. The formulas are those of ``moments`` and ``couplings``.

Arguments that many functions share:

- ``vec`` [3, n], ``radial`` [n_radial, n], ``slope`` [n_radial, n]: of the edges of a center, sorted by species;
- ``angular`` [(l_max + 1)^2, n]: harmonics Y_lm;
- ``moments`` [species n_radial, (l_max + 1)^2]: the atomic basis A of a center.
"""

import numpy as np

from ase_mlelec.compiled import compiled


@compiled
def harmonics(unit, n, l_max, legendre, angular, scratch):
    """Fill ``angular`` with Y_lm of the first ``n`` of the vectors ``unit`` [3, .]; ``legendre`` [rows, 4] as in tables."""
    cosine, sine, before, now = scratch[0], scratch[1], scratch[2], scratch[3]
    x, y, z = unit[0], unit[1], unit[2]
    for e in range(n):
        cosine[e], sine[e] = 1.0, 0.0
    row = 0
    for m in range(l_max + 1):
        for e in range(n):
            before[e], now[e] = 0.0, legendre[row, 0]
        for l in range(m, l_max + 1):
            plus, minus = angular[l * l + l + m], angular[l * l + l - m]
            forward, back = legendre[row, 1], legendre[row, 2]
            for e in range(n):
                plus[e] = now[e] * cosine[e]
            if m:
                for e in range(n):
                    minus[e] = now[e] * sine[e]
            for e in range(n):
                following = forward * now[e] * z[e] + back * before[e]
                before[e], now[e] = now[e], following
            row += 1
        for e in range(n):
            cosine[e], sine[e] = x[e] * cosine[e] - y[e] * sine[e], x[e] * sine[e] + y[e] * cosine[e]


@compiled
def harmonics_pull_back(unit, n, l_max, legendre, of_angular, of_unit, scratch):
    """Fill ``of_unit`` [3, .] with the derivatives of sum_lm of_angular_lm Y_lm by the components of ``unit``."""
    x, y, z = unit[0], unit[1], unit[2]
    gx, gy, gz = of_unit[0], of_unit[1], of_unit[2]
    cosine, sine, lower_cosine, lower_sine = scratch[0], scratch[1], scratch[2], scratch[3]
    before, now, slope_before, slope = scratch[4], scratch[5], scratch[6], scratch[7]
    of_cosine, of_sine = scratch[8], scratch[9]
    for e in range(n):
        gx[e] = gy[e] = gz[e] = 0.0
        cosine[e], sine[e], lower_cosine[e], lower_sine[e] = 1.0, 0.0, 0.0, 0.0
    row = 0
    for m in range(l_max + 1):
        for e in range(n):
            before[e], now[e], slope_before[e], slope[e] = 0.0, legendre[row, 0], 0.0, 0.0
            of_cosine[e] = of_sine[e] = 0.0
        for l in range(m, l_max + 1):
            plus, minus = of_angular[l * l + l + m], of_angular[l * l + l - m]
            forward, back = legendre[row, 1], legendre[row, 2]
            factor = 1.0 if m else 0.0  # for m = 0 both rows are the same
            for e in range(n):
                gz[e] += slope[e] * (plus[e] * cosine[e] + factor * minus[e] * sine[e])
                of_cosine[e] += plus[e] * now[e]
                of_sine[e] += minus[e] * now[e]
                following = forward * (now[e] + z[e] * slope[e]) + back * slope_before[e]
                slope_before[e], slope[e] = slope[e], following
                following = forward * now[e] * z[e] + back * before[e]
                before[e], now[e] = now[e], following
            row += 1
        for e in range(n):
            gx[e] += m * (of_cosine[e] * lower_cosine[e] + of_sine[e] * lower_sine[e])
            gy[e] += m * (of_sine[e] * lower_cosine[e] - of_cosine[e] * lower_sine[e])
            lower_cosine[e], lower_sine[e] = cosine[e], sine[e]
            cosine[e], sine[e] = x[e] * cosine[e] - y[e] * sine[e], x[e] * sine[e] + y[e] * cosine[e]


@compiled
def radial_functions(r, n, cutoff, inner, coefficients, n_radial, radial, slope, scratch):
    """Fill R_n [n_radial, .] and dR_n/dr of the distances ``r`` [.]; columns of ``coefficients`` are Chebyshev series."""
    fade, fall, x, dx = scratch[0], scratch[1], scratch[2], scratch[3]
    t0, t1, d0, d1 = scratch[4], scratch[5], scratch[6], scratch[7]
    scale = 2 * (1 + inner) / (1 - inner)
    for e in range(n):
        rho = r[e] / cutoff
        rest = max(1 - rho * rho, 0.0)
        fade[e], fall[e] = rest * rest, -4 * rho * rest / cutoff
        x[e] = scale * (1 - rho) / (1 + rho) - 1
        dx[e] = -2 * scale / ((1 + rho) * (1 + rho) * cutoff)
        t0[e], t1[e], d0[e], d1[e] = 1.0, x[e], 0.0, 1.0
    for k in range(n_radial):
        for e in range(n):
            radial[k, e] = slope[k, e] = 0.0
    for j in range(n_radial):
        for k in range(j, n_radial):  # a triangle: R_k has degree k
            c = coefficients[j, k]
            for e in range(n):
                radial[k, e] += c * t0[e]
                slope[k, e] += c * d0[e]
        for e in range(n):
            following, falling = 2 * x[e] * t1[e] - t0[e], 2 * (t1[e] + x[e] * d1[e]) - d0[e]
            t0[e], t1[e], d0[e], d1[e] = t1[e], following, d1[e], falling
    for k in range(n_radial):
        for e in range(n):
            slope[k, e] = slope[k, e] * dx[e] * fade[e] + radial[k, e] * fall[e]
            radial[k, e] *= fade[e]


@compiled
def add_moments(radial, angular, start, end, n_radial, n_angular, moments):
    """Fill the rows ``moments`` [n_radial, .] of one species, sum over its edges ``start`` .. ``end`` of R_n Y_lm."""
    for n in range(n_radial):
        own = radial[n]
        for lm in range(n_angular):
            row, total = angular[lm], 0.0
            for e in range(start, end):
                total += own[e] * row[e]
            moments[n, lm] = total


@compiled
def moments_pull_back(radial, slope, angular, start, end, n_radial, n_angular, of_moments, of_angular, of_r, scratch):
    """Add the derivatives of the moments of one species to ``of_angular`` and ``of_r`` of its edges."""
    sums = scratch[0]
    for n in range(n_radial):
        for e in range(start, end):
            sums[e] = 0.0
        own = radial[n]
        for lm in range(n_angular):
            factor, row, gradient = of_moments[n, lm], angular[lm], of_angular[lm]
            for e in range(start, end):
                gradient[e] += factor * own[e]
                sums[e] += factor * row[e]
        for e in range(start, end):
            of_r[e] += sums[e] * slope[n, e]


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
def sort_edges(vec, kind, start, end, cutoff, n_species, near, ends, r, unit):
    """Sort the edges ``start`` .. ``end`` of a center that are within the cutoff by species.

    Fills ``near`` (their numbers), ``ends`` [species + 1], distances ``r`` and unit vectors ``unit`` [3, .].
    """
    ends[:] = 0
    for e in range(start, end):
        if vec[0, e] ** 2 + vec[1, e] ** 2 + vec[2, e] ** 2 < cutoff * cutoff:
            ends[kind[e] + 1] += 1
    for k in range(n_species):
        ends[k + 1] += ends[k]
    for e in range(start, end):
        square = vec[0, e] ** 2 + vec[1, e] ** 2 + vec[2, e] ** 2
        if square < cutoff * cutoff:
            slot = ends[kind[e]]
            ends[kind[e]] += 1
            near[slot], r[slot] = e, np.sqrt(square)
            for a in range(3):
                unit[a, slot] = vec[a, e] / r[slot]
    for k in range(n_species, 0, -1):
        ends[k] = ends[k - 1]
    ends[0] = 0
    return ends[n_species]


@compiled
def all_moments(bounds, vec, kind, cutoff, inner, coefficients, l_max, legendre, moments):
    """Fill ``moments`` [C, species n_radial, (l_max + 1)^2] of all centers.

    Parameters
    ----------
    bounds : array [C + 1]
        Edges of center c are ``bounds[c]`` .. ``bounds[c + 1]``.
    vec : array [3, E], Å
    kind : array [E]
        Species of the neighbors.
    """
    n_radial, n_angular = len(coefficients), (l_max + 1) ** 2
    n_species, most = moments.shape[1] // n_radial, np.max(bounds[1:] - bounds[:-1])
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, scratch = np.empty(most), np.empty((3, most)), np.empty((10, most))
    angular = np.empty((n_angular, most))
    radial, slope = np.empty((n_radial, most)), np.empty((n_radial, most))
    for c in range(len(moments)):
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, n_species, near, ends, r, unit)
        radial_functions(r, n, cutoff, inner, coefficients, n_radial, radial, slope, scratch)
        harmonics(unit, n, l_max, legendre, angular, scratch)
        for k in range(n_species):
            own = moments[c, k * n_radial : (k + 1) * n_radial]
            add_moments(radial, angular, ends[k], ends[k + 1], n_radial, n_angular, own)


@compiled
def add_gradient(bounds, vec, kind, cutoff, inner, coefficients, l_max, legendre, of_moments, gradient):
    """Add the derivatives by the moments of all centers to those by the vectors, ``gradient`` [3, E]."""
    n_radial, n_angular = len(coefficients), (l_max + 1) ** 2
    n_species, most = of_moments.shape[1] // n_radial, np.max(bounds[1:] - bounds[:-1])
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, scratch = np.empty(most), np.empty((3, most)), np.empty((10, most))
    angular, of_angular = np.empty((n_angular, most)), np.empty((n_angular, most))
    radial, slope = np.empty((n_radial, most)), np.empty((n_radial, most))
    of_r, of_unit = np.empty(most), np.empty((3, most))
    for c in range(len(of_moments)):
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, n_species, near, ends, r, unit)
        radial_functions(r, n, cutoff, inner, coefficients, n_radial, radial, slope, scratch)
        harmonics(unit, n, l_max, legendre, angular, scratch)
        of_angular[:, :n] = 0.0
        of_r[:n] = 0.0
        for k in range(n_species):
            own, i, j = of_moments[c, k * n_radial : (k + 1) * n_radial], ends[k], ends[k + 1]
            moments_pull_back(radial, slope, angular, i, j, n_radial, n_angular, own, of_angular, of_r, scratch)
        harmonics_pull_back(unit, n, l_max, legendre, of_angular, of_unit, scratch)
        for k in range(n):
            along = unit[0, k] * of_unit[0, k] + unit[1, k] * of_unit[1, k] + unit[2, k] * of_unit[2, k]
            for a in range(3):
                gradient[a, near[k]] += unit[a, k] * of_r[k] + (of_unit[a, k] - unit[a, k] * along) / r[k]


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
