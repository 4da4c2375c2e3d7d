"""Sums over the edges of centers as compiled loops: atomic basis of ACE and moments of DeepPot-SE, with derivatives.

The edges of a center are the last axis of all arrays, whose rows begin where a vector of ``lanes`` may, and are done one
vector after the other. The formulas are those of ``ace.moments``, ``smooth_rows`` and ``embedding``.

Arguments that many functions share:

- ``bounds`` [C + 1]: the edges of center c are bounds[c] .. bounds[c + 1];
- ``vec`` [3, E], Å, and ``kind`` [E]: vectors to the neighbors, and their species;
- ``near`` [.], ``r`` [1, .] and ``unit`` [3, .]: numbers, distances and unit vectors of the edges of one center, by species;
- ``first``, ``last``: vectors of edges of one species, from first to last - 1; ``n`` is the number of all;
- ``angular`` [(l_max + 1)^2, .]: harmonics Y_lm;
- ``legendre`` [rows, 3]: first value, and factors of the recursion in l, of the rows m = 0 .. l_max, l = m .. l_max.
"""

import numpy as np

from ase_mlelec.compiled import compiled
from ase_mlelec.lanes import BYTES, empty_rows, every, load, spread, store, total

LANES = BYTES // 8


@compiled
def harmonics(unit, n, l_max, legendre, angular):
    """Fill ``angular`` with Y_lm of ``n`` vectors of edges."""
    width = unit.shape[1] // LANES
    for b in range(n):
        x, y, z = load(unit, b), load(unit, width + b), load(unit, 2 * width + b)
        zero, cosine, sine, row = every(x, 0.0), every(x, 1.0), every(x, 0.0), 0
        for m in range(l_max + 1):
            before, now = zero, spread(legendre, 3 * row)
            for l in range(m, l_max + 1):
                store(angular, (l * l + l + m) * width + b, now * cosine)
                if m:
                    store(angular, (l * l + l - m) * width + b, now * sine)
                forward, back = spread(legendre, 3 * row + 1), spread(legendre, 3 * row + 2)
                before, now = now, forward * now * z + back * before
                row += 1
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine


@compiled
def harmonics_pull_back(unit, n, l_max, legendre, of_angular, of_unit):
    """Fill ``of_unit`` [3, .] with the derivatives of sum_lm of_angular_lm Y_lm by the components of ``unit``."""
    width = unit.shape[1] // LANES
    for b in range(n):
        x, y, z = load(unit, b), load(unit, width + b), load(unit, 2 * width + b)
        zero, cosine, sine, row = every(x, 0.0), every(x, 1.0), every(x, 0.0), 0
        gx, gy, gz, lower_cosine, lower_sine = zero, zero, zero, zero, zero
        for m in range(l_max + 1):
            before, now, slope_before, slope = zero, spread(legendre, 3 * row), zero, zero
            of_cosine, of_sine, order = zero, zero, every(x, float(m))
            for l in range(m, l_max + 1):
                plus = load(of_angular, (l * l + l + m) * width + b)
                minus = load(of_angular, (l * l + l - m) * width + b)  # for m = 0 the same, times a sine of 0
                forward, back = spread(legendre, 3 * row + 1), spread(legendre, 3 * row + 2)
                gz += slope * (plus * cosine + minus * sine)
                of_cosine += plus * now
                of_sine += minus * now
                slope_before, slope = slope, forward * (now + z * slope) + back * slope_before
                before, now = now, forward * now * z + back * before
                row += 1
            gx += order * (of_cosine * lower_cosine + of_sine * lower_sine)
            gy += order * (of_sine * lower_cosine - of_cosine * lower_sine)
            lower_cosine, lower_sine = cosine, sine
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine
        store(of_unit, b, gx)
        store(of_unit, width + b, gy)
        store(of_unit, 2 * width + b, gz)


@compiled
def most_slots(bounds, n_species):
    """Number of edges of a center at most, where those of each species fill whole vectors."""
    most = 1
    for c in range(len(bounds) - 1):
        most = max(most, bounds[c + 1] - bounds[c])
    return (most // LANES + n_species) * LANES


@compiled
def sort_edges(vec, kind, start, end, cutoff, near, ends, r, unit):
    """Sort the edges ``start`` .. ``end`` of a center that are within the cutoff by species, and return their vectors.

    Fills ``near``, ``r``, ``unit``, and ``ends`` [species + 1], the first vector of each species. Lanes that are left over
    have the number -1 and lie at the cutoff, where smooth functions are zero.
    """
    slot = 0
    ends[0] = 0
    for k in range(len(ends) - 1):
        for e in range(start, end):
            square = vec[0, e] ** 2 + vec[1, e] ** 2 + vec[2, e] ** 2
            if kind[e] == k and square < cutoff * cutoff:
                near[slot], r[0, slot] = e, np.sqrt(square)
                for a in range(3):
                    unit[a, slot] = vec[a, e] / r[0, slot]
                slot += 1
        while slot % LANES:
            near[slot], r[0, slot], unit[0, slot], unit[1, slot], unit[2, slot] = -1, cutoff, 0.0, 0.0, 1.0
            slot += 1
        ends[k + 1] = slot // LANES
    return slot // LANES


@compiled
def add_to_vectors(near, n, r, unit, of_r, of_unit, gradient):
    """Add derivatives by distances and by unit vectors to those by the vectors, ``gradient`` [3, E]."""
    for k in range(n * LANES):
        if near[k] >= 0:
            along = unit[0, k] * of_unit[0, k] + unit[1, k] * of_unit[1, k] + unit[2, k] * of_unit[2, k]
            for a in range(3):
                gradient[a, near[k]] += unit[a, k] * of_r[0, k] + (of_unit[a, k] - unit[a, k] * along) / r[0, k]


# atomic basis of ACE ------------------------------------------------------------------------------------------------


@compiled
def radial_functions(r, n, cutoff, inner, coefficients, radial, slope):
    """Fill R_n [n_radial, .] and dR_n/dr of the distances ``r``; columns of ``coefficients`` are Chebyshev series."""
    n_radial, width, scale = len(coefficients), radial.shape[1] // LANES, 2 * (1 + inner) / (1 - inner)
    for b in range(n):
        edge = every(load(r, b), cutoff)
        rho, one, two, zero = load(r, b) / edge, every(edge, 1.0), every(edge, 2.0), every(edge, 0.0)
        rest, further = one - rho * rho, every(edge, scale) / (one + rho)
        fade, fall = rest * rest, every(edge, -4.0) * rho * rest / edge
        x = further * (one - rho) - one
        dx = every(edge, -2.0) * further / (edge + load(r, b))
        t0, t1, d0, d1 = one, x, zero, one
        for j in range(n_radial):
            store(radial, j * width + b, t0)
            store(slope, j * width + b, d0)
            t0, t1, d0, d1 = t1, two * x * t1 - t0, d1, two * (t1 + x * d1) - d0
        for k in range(n_radial - 1, -1, -1):  # a triangle: R_k has degree k, and may take the place of T_k
            value, rise = zero, zero
            for j in range(k + 1):
                own = spread(coefficients, j * n_radial + k)
                value += own * load(radial, j * width + b)
                rise += own * load(slope, j * width + b)
            store(radial, k * width + b, value * fade)
            store(slope, k * width + b, rise * dx * fade + value * fall)


@compiled
def add_moments(radial, angular, first, last, moments):
    """Fill ``moments`` [n_radial, n_angular] of one species: sums over its edges of products such as R_n Y_lm."""
    width, n_radial, n_angular, zero = radial.shape[1] // LANES, len(radial), len(angular), every(load(radial, 0), 0.0)
    for n in range(0, n_radial, 2):
        m = min(n + 1, n_radial - 1)
        for i in range(0, n_angular, 2):
            j, a, b, c, d = min(i + 1, n_angular - 1), zero, zero, zero, zero
            for e in range(first, last):
                p, q = load(radial, n * width + e), load(radial, m * width + e)
                y, z = load(angular, i * width + e), load(angular, j * width + e)
                a += p * y
                b += p * z
                c += q * y
                d += q * z
            moments[n, i], moments[n, j] = total(a), total(b)
            moments[m, i], moments[m, j] = total(c), total(d)


@compiled
def moments_pull_back(radial, slope, angular, first, last, of_moments, of_angular, of_r):
    """Fill ``of_angular`` and ``of_r`` of the edges of one species with the derivatives of its moments."""
    width, n_radial, n_angular = radial.shape[1] // LANES, len(radial), len(angular)
    for e in range(first, last):
        zero = every(load(radial, e), 0.0)
        for i in range(0, n_angular, 2):
            j, a, b = min(i + 1, n_angular - 1), zero, zero
            for n in range(n_radial):
                own = load(radial, n * width + e)
                a += spread(of_moments, n * n_angular + i) * own
                b += spread(of_moments, n * n_angular + j) * own
            store(of_angular, i * width + e, a)
            store(of_angular, j * width + e, b)
        along = zero
        for n in range(0, n_radial, 2):
            m, a, b = min(n + 1, n_radial - 1), zero, zero
            for i in range(n_angular):
                own = load(angular, i * width + e)
                a += spread(of_moments, n * n_angular + i) * own
                b += spread(of_moments, m * n_angular + i) * own
            along += a * load(slope, n * width + e)
            if m > n:
                along += b * load(slope, m * width + e)
        store(of_r, e, along)


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
    n_radial, n_species = len(coefficients), moments.shape[1] // len(coefficients)
    most = most_slots(bounds, n_species)
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, angular = empty_rows(1, most), empty_rows(3, most), empty_rows(moments.shape[2], most)
    radial, slope = empty_rows(n_radial, most), empty_rows(n_radial, most)
    for c in range(len(moments)):
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, near, ends, r, unit)
        radial_functions(r, n, cutoff, inner, coefficients, radial, slope)
        harmonics(unit, n, l_max, legendre, angular)
        for k in range(n_species):
            add_moments(radial, angular, ends[k], ends[k + 1], moments[c, k * n_radial : (k + 1) * n_radial])


@compiled
def add_gradient(bounds, vec, kind, cutoff, inner, coefficients, l_max, legendre, of_moments, gradient):
    """Add derivatives by the moments of all centers, ``of_moments`` [W, C, ...], to those by the vectors, [W, 3, E]."""
    n_radial, n_species = len(coefficients), of_moments.shape[2] // len(coefficients)
    most = most_slots(bounds, n_species)
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, angular = empty_rows(1, most), empty_rows(3, most), empty_rows(of_moments.shape[3], most)
    of_r, of_unit, of_angular = empty_rows(1, most), empty_rows(3, most), empty_rows(of_moments.shape[3], most)
    radial, slope = empty_rows(n_radial, most), empty_rows(n_radial, most)
    for c in range(of_moments.shape[1]):
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, near, ends, r, unit)
        radial_functions(r, n, cutoff, inner, coefficients, radial, slope)
        harmonics(unit, n, l_max, legendre, angular)
        for s in range(len(of_moments)):
            for k in range(n_species):
                own = of_moments[s, c, k * n_radial : (k + 1) * n_radial]
                moments_pull_back(radial, slope, angular, ends[k], ends[k + 1], own, of_angular, of_r)
            harmonics_pull_back(unit, n, l_max, legendre, of_angular, of_unit)
            add_to_vectors(near, n, r, unit, of_r, of_unit, gradient[s])


# DeepPot-SE ---------------------------------------------------------------------------------------------------------


@compiled
def smooth_rows(near, r, n, smooth, cutoff, normalization, variable, rows, slopes):
    """Fill s, the factor of the harmonics and the variable x of the series, ``rows`` [3, .], and their slopes in r.

    All are 0 in lanes without an edge. Returns the largest x.

    Parameters
    ----------
    normalization : array [3]
        Mean of s, factor of s, factor of the harmonics, for the species of the center.
    variable : array [3]
        (1, a, b) for x = a/(r + cutoff) + b, or (0, a, b) for x = a s + b.
    """
    mean, radial, angular = normalization[0], normalization[1], normalization[2]
    rows[:, : n * LANES], slopes[:, : n * LANES], largest, width = 0.0, 0.0, -np.inf, cutoff - smooth
    for e in range(n * LANES):
        if near[e] < 0:
            continue
        distance = r[0, e]
        u = min(max((distance - smooth) / width, 0.0), 1.0)
        weight = (1 - u * u * u * (10 - 15 * u + 6 * u * u)) / distance
        fall = -(30 * (u - u * u) * (u - u * u) / width + weight) / distance
        rows[0, e], slopes[0, e] = (weight - mean) * radial, fall * radial
        rows[1, e], slopes[1, e] = weight * angular, fall * angular
        if variable[0] > 0:
            further = variable[1] / (distance + cutoff)
            rows[2, e], slopes[2, e] = further + variable[2], -further / (distance + cutoff)
        else:
            rows[2, e], slopes[2, e] = variable[1] * rows[0, e] + variable[2], variable[1] * slopes[0, e]
        largest = max(largest, rows[2, e])
    return largest


@compiled
def series(rows, n, terms):
    """Fill ``terms`` [K, .] with Chebyshev polynomials of x, signs + + - - + + ... as in ``embedding``."""
    width, count = terms.shape[1] // LANES, len(terms)
    for b in range(n):
        x = load(rows, 2 * width + b)
        before, now, twice = every(x, 1.0), x, x + x
        for k in range(count):
            store(terms, k * width + b, before)
            following = before + twice * now if k % 2 else before - twice * now
            before, now = now, following


@compiled
def weighted_rows(rows, angular, order, n, weighted):
    """Fill the rows R_j, ``weighted`` [rows, .]: s, and the harmonics ``order`` times their factor."""
    width = rows.shape[1] // LANES
    for b in range(n):
        size = load(rows, width + b)
        store(weighted, b, load(rows, b))
        for i in range(1, len(order)):
            store(weighted, i * width + b, size * load(angular, order[i] * width + b))


@compiled
def all_series_moments(bounds, vec, kind, own_kind, constants, tables, moments, present):
    """Fill ``moments`` [C, rows, species, K], sums of R_j S_k(x_j), and ``present`` [C, species]; returns the largest x.

    Parameters
    ----------
    own_kind : array [C]
        Species of the centers.
    constants : (smooth, cutoff, l_max)
    tables : (normalization [species, 3], variable [3], legendre, order [rows] of the harmonics)
    """
    (smooth, cutoff, l_max), (normalization, variable, legendre, order) = constants, tables
    n_species, largest = moments.shape[2], -np.inf
    most = most_slots(bounds, n_species)
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, angular = empty_rows(1, most), empty_rows(3, most), empty_rows((l_max + 1) ** 2, most)
    terms, weighted = empty_rows(moments.shape[3], most), empty_rows(len(order), most)
    rows, slopes = empty_rows(3, most), empty_rows(3, most)
    for c in range(len(moments)):
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, near, ends, r, unit)
        own = normalization[own_kind[c]]
        largest = max(largest, smooth_rows(near, r, n, smooth, cutoff, own, variable, rows, slopes))
        series(rows, n, terms)
        harmonics(unit, n, l_max, legendre, angular)
        weighted_rows(rows, angular, order, n, weighted)
        for s in range(n_species):
            present[c, s] = np.sum(near[ends[s] * LANES : ends[s + 1] * LANES] >= 0)
            add_moments(weighted, terms, ends[s], ends[s + 1], moments[c][:, s])
    return largest


@compiled
def series_pull_back(coefficients, terms, first, last, i, rows, slopes, angular, harmonic, of_angular, of_r):
    """Fill a row of ``of_angular``, and add to ``of_r``, for the row ``i`` of R_j and the edges of one species.

    ``coefficients`` [2, K] are those of the series of the derivative by R_j, and of R_j times that by x_j.
    """
    width, n_terms = terms.shape[1] // LANES, len(terms)
    for b in range(first, last):
        by_row = every(load(rows, b), 0.0)
        by_x, more, further = by_row, by_row, by_row
        for k in range(0, n_terms - 1, 2):
            one, two = load(terms, k * width + b), load(terms, (k + 1) * width + b)
            by_row += spread(coefficients, k) * one
            more += spread(coefficients, k + 1) * two
            by_x += spread(coefficients, n_terms + k) * one
            further += spread(coefficients, n_terms + k + 1) * two
        if n_terms % 2:
            by_row += spread(coefficients, n_terms - 1) * load(terms, (n_terms - 1) * width + b)
            by_x += spread(coefficients, 2 * n_terms - 1) * load(terms, (n_terms - 1) * width + b)
        by_row, by_x = by_row + more, (by_x + further) * load(slopes, 2 * width + b)
        if i:
            value, size = load(angular, harmonic * width + b), load(rows, width + b)
            store(of_angular, harmonic * width + b, by_row * size)
            store(of_r, b, load(of_r, b) + value * (by_row * load(slopes, width + b) + by_x * size))
        else:
            store(of_angular, harmonic * width + b, by_row - by_row)
            store(of_r, b, by_row * load(slopes, b) + by_x * load(rows, b))


@compiled
def add_series_gradient(bounds, vec, kind, own_kind, constants, tables, slopes_of, gradient):
    """Add the derivatives by the vectors to ``gradient`` [3, E].

    ``slopes_of`` [C, rows, species, 2, K] are the coefficients of the series of the derivative by R_j, and of R_j times
    that by x_j. Other arguments as in ``all_series_moments``.
    """
    (smooth, cutoff, l_max), (normalization, variable, legendre, order) = constants, tables
    n_species = slopes_of.shape[2]
    most = most_slots(bounds, n_species)
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, angular = empty_rows(1, most), empty_rows(3, most), empty_rows((l_max + 1) ** 2, most)
    of_r, of_unit, of_angular = empty_rows(1, most), empty_rows(3, most), empty_rows((l_max + 1) ** 2, most)
    terms, rows, slopes = empty_rows(slopes_of.shape[4], most), empty_rows(3, most), empty_rows(3, most)
    for c in range(len(slopes_of)):
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, near, ends, r, unit)
        smooth_rows(near, r, n, smooth, cutoff, normalization[own_kind[c]], variable, rows, slopes)
        series(rows, n, terms)
        harmonics(unit, n, l_max, legendre, angular)
        for s in range(n_species):
            for i in range(len(order)):
                own = slopes_of[c, i, s]
                series_pull_back(own, terms, ends[s], ends[s + 1], i, rows, slopes, angular, order[i], of_angular, of_r)
        harmonics_pull_back(unit, n, l_max, legendre, of_angular, of_unit)
        add_to_vectors(near, n, r, unit, of_r, of_unit, gradient)
