"""Sums over the edges of centers as compiled loops: atomic basis of ACE and moments of DeepPot-SE, with derivatives.

The edges of a center are the last axis of all arrays, so that the innermost loops run over neighboring numbers. The
formulas are those of ``ace.moments``, ``smooth_rows`` and ``embedding``.

Arguments that many functions share:

- ``bounds`` [C + 1]: the edges of center c are bounds[c] .. bounds[c + 1];
- ``vec`` [3, E], Å, and ``kind`` [E]: vectors to the neighbors, and their species;
- ``r`` and ``unit`` [3, .]: distances and unit vectors of the edges of one center, sorted by species;
- ``angular`` [(l_max + 1)^2, .]: harmonics Y_lm;
- ``legendre`` [rows, 3]: first value, and factors of the recursion in l, of the rows m = 0 .. l_max, l = m .. l_max;
- ``scratch`` [10, .]: intermediate numbers.
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
def add_to_vectors(near, n, r, unit, of_r, of_unit, gradient):
    """Add derivatives by distances and by unit vectors to those by the vectors, ``gradient`` [3, E]."""
    for k in range(n):
        along = unit[0, k] * of_unit[0, k] + unit[1, k] * of_unit[1, k] + unit[2, k] * of_unit[2, k]
        for a in range(3):
            gradient[a, near[k]] += unit[a, k] * of_r[k] + (of_unit[a, k] - unit[a, k] * along) / r[k]


# atomic basis of ACE ------------------------------------------------------------------------------------------------


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
        add_to_vectors(near, n, r, unit, of_r, of_unit, gradient)


# DeepPot-SE ---------------------------------------------------------------------------------------------------------


@compiled
def smooth_rows(r, n, smooth, cutoff, normalization, variable, rows, slopes):
    """Fill s, the factor of the harmonics and the variable x of the series, ``rows`` [3, .], and their slopes in r.

    Parameters
    ----------
    normalization : array [3]
        Mean of s, factor of s, factor of the harmonics, for the species of the center.
    variable : array [3]
        (1, a, b) for x = a/(r + cutoff) + b, or (0, a, b) for x = a s + b.
    """
    mean, radial, angular = normalization[0], normalization[1], normalization[2]
    s, size, x = rows[0], rows[1], rows[2]
    of_s, of_size, of_x = slopes[0], slopes[1], slopes[2]
    width = cutoff - smooth
    for e in range(n):
        u = min(max((r[e] - smooth) / width, 0.0), 1.0)
        weight = (1 - u * u * u * (10 - 15 * u + 6 * u * u)) / r[e]
        fall = -(30 * (u - u * u) * (u - u * u) / width + weight) / r[e]
        s[e], of_s[e] = (weight - mean) * radial, fall * radial
        size[e], of_size[e] = weight * angular, fall * angular
        if variable[0] > 0:
            x[e] = variable[1] / (r[e] + cutoff) + variable[2]
            of_x[e] = -variable[1] / ((r[e] + cutoff) * (r[e] + cutoff))
        else:
            x[e], of_x[e] = variable[1] * s[e] + variable[2], variable[1] * of_s[e]


@compiled
def series(x, n, terms):
    """Fill ``terms`` [K, .] with Chebyshev polynomials of x, signs + + - - + + ... as in ``embedding``."""
    for e in range(n):
        terms[0, e] = 1.0
    if len(terms) > 1:
        for e in range(n):
            terms[1, e] = x[e]
    for k in range(1, len(terms) - 1):
        before, now, after, factor = terms[k - 1], terms[k], terms[k + 1], -2.0 if k % 2 else 2.0
        for e in range(n):
            after[e] = before[e] + factor * x[e] * now[e]


@compiled
def sums_over_edges(own, terms, start, end, sums):
    """Fill ``sums`` [K] with the sums over start .. end of ``own`` times each of ``terms`` [K, .], two at a time."""
    last = len(terms) - 1
    for k in range(0, len(terms), 2):
        first, second, total, other = terms[k], terms[min(k + 1, last)], 0.0, 0.0
        for e in range(start, end):
            total += own[e] * first[e]
            other += own[e] * second[e]
        sums[k] = total
        if k < last:
            sums[k + 1] = other


@compiled
def all_series_moments(bounds, vec, kind, own_kind, constants, tables, moments):
    """Fill ``moments`` [C, rows, species, K], sums of R_j S_k(x_j); returns the largest x.

    Parameters
    ----------
    own_kind : array [C]
        Species of the centers.
    constants : (smooth, cutoff, l_max)
    tables : (normalization [species, 3], variable [3], legendre, order [rows] of the harmonics)
    """
    (smooth, cutoff, l_max), (normalization, variable, legendre, order) = constants, tables
    n_species, most = moments.shape[2], np.max(bounds[1:] - bounds[:-1])
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, scratch = np.empty(most), np.empty((3, most)), np.empty((10, most))
    angular, terms = np.empty(((l_max + 1) ** 2, most)), np.empty((moments.shape[3], most))
    rows, slopes, largest = np.empty((3, most)), np.empty((3, most)), -np.inf
    for c in range(len(moments)):
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, n_species, near, ends, r, unit)
        smooth_rows(r, n, smooth, cutoff, normalization[own_kind[c]], variable, rows, slopes)
        series(rows[2], n, terms)
        harmonics(unit, n, l_max, legendre, angular, scratch)
        for e in range(n):
            largest = max(largest, rows[2, e])
        for i in range(len(order)):
            own, row = scratch[0], angular[order[i]]
            for e in range(n):
                own[e] = rows[1, e] * row[e] if i else rows[0, e]
            for s in range(n_species):
                sums_over_edges(own, terms, ends[s], ends[s + 1], moments[c, i, s])
    return largest


@compiled
def add_series_gradient(bounds, vec, kind, own_kind, constants, tables, slopes_of, gradient):
    """Add the derivatives by the vectors to ``gradient`` [3, E].

    ``slopes_of`` [C, rows, species, 2, K] are the coefficients of the series of the derivative by R_j, and of R_j times
    that by x_j. Other arguments as in ``all_series_moments``.
    """
    (smooth, cutoff, l_max), (normalization, variable, legendre, order) = constants, tables
    n_species, most = slopes_of.shape[2], np.max(bounds[1:] - bounds[:-1])
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, scratch = np.empty(most), np.empty((3, most)), np.empty((10, most))
    angular, terms = np.empty(((l_max + 1) ** 2, most)), np.empty((slopes_of.shape[4], most))
    of_angular, of_unit, of_r = np.empty(((l_max + 1) ** 2, most)), np.empty((3, most)), np.empty(most)
    rows, slopes = np.empty((3, most)), np.empty((3, most))
    for c in range(len(slopes_of)):
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, n_species, near, ends, r, unit)
        smooth_rows(r, n, smooth, cutoff, normalization[own_kind[c]], variable, rows, slopes)
        series(rows[2], n, terms)
        harmonics(unit, n, l_max, legendre, angular, scratch)
        of_r[:n] = 0.0
        for i in range(len(order)):
            row, of_row = angular[order[i]], of_angular[order[i]]
            sum_series(slopes_of[c, i], ends, terms, scratch)
            by_row, by_x = scratch[0], scratch[1]
            if i:
                for e in range(n):
                    of_row[e] = by_row[e] * rows[1, e]
                    of_r[e] += row[e] * (by_row[e] * slopes[1, e] + by_x[e] * rows[1, e] * slopes[2, e])
            else:
                for e in range(n):
                    of_row[e] = 0.0
                    of_r[e] += by_row[e] * slopes[0, e] + by_x[e] * rows[0, e] * slopes[2, e]
        harmonics_pull_back(unit, n, l_max, legendre, of_angular, of_unit, scratch)
        add_to_vectors(near, n, r, unit, of_r, of_unit, gradient)


@compiled
def sum_series(coefficients, ends, terms, sums):
    """Fill two rows of ``sums`` with the series of ``coefficients`` [species, 2, K] of the edges of each species."""
    for s in range(len(coefficients)):
        for j in range(2):
            own = sums[j]
            for e in range(ends[s], ends[s + 1]):
                own[e] = 0.0
            for k in range(0, len(terms) - 1, 2):
                factor, other, first, second = coefficients[s, j, k], coefficients[s, j, k + 1], terms[k], terms[k + 1]
                for e in range(ends[s], ends[s + 1]):
                    own[e] += factor * first[e] + other * second[e]
            if len(terms) % 2:
                factor, first = coefficients[s, j, len(terms) - 1], terms[len(terms) - 1]
                for e in range(ends[s], ends[s + 1]):
                    own[e] += factor * first[e]
