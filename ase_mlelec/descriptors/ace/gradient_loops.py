"""Derivatives of the atomic basis by the coordinates of all atoms, as compiled loops.

The formulas are those of ``moments``; arguments that are not described here are those of ``edge_loops``. Here every edge
has its own derivatives, which are added up one by one, so that edges do not come in vectors.
"""

import numpy as np

from ase_mlelec.compiled import compiled


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
def harmonics(unit, n, l_max, legendre, angular, scratch):
    """Fill ``angular`` with Y_lm of the first ``n`` of the vectors ``unit`` [3, .]; ``legendre`` as in ``edge_loops``."""
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
def harmonic_slopes(unit, n, l_max, legendre, slopes, scratch):
    """Fill ``slopes`` [3, (l_max + 1)^2, .] with the derivatives by x, y and z of the polynomials of ``harmonics``."""
    x, y, z = unit[0], unit[1], unit[2]
    cosine, sine, lower_cosine, lower_sine = scratch[0], scratch[1], scratch[2], scratch[3]
    before, now, slope_before, slope = scratch[4], scratch[5], scratch[6], scratch[7]
    for e in range(n):
        cosine[e], sine[e], lower_cosine[e], lower_sine[e] = 1.0, 0.0, 0.0, 0.0
    row = 0
    for m in range(l_max + 1):
        for e in range(n):
            before[e], now[e], slope_before[e], slope[e] = 0.0, legendre[row, 0], 0.0, 0.0
        for l in range(m, l_max + 1):
            plus, minus = l * l + l + m, l * l + l - m
            forward, back = legendre[row, 1], legendre[row, 2]
            for e in range(n):
                slopes[0, minus, e], slopes[1, minus, e] = m * now[e] * lower_sine[e], m * now[e] * lower_cosine[e]
                slopes[2, minus, e] = slope[e] * sine[e]
            for e in range(n):  # the same row for m = 0, to which the cosine belongs
                slopes[0, plus, e], slopes[1, plus, e] = m * now[e] * lower_cosine[e], -m * now[e] * lower_sine[e]
                slopes[2, plus, e] = slope[e] * cosine[e]
            for e in range(n):
                following = forward * (now[e] + z[e] * slope[e]) + back * slope_before[e]
                slope_before[e], slope[e] = slope[e], following
                following = forward * now[e] * z[e] + back * before[e]
                before[e], now[e] = now[e], following
            row += 1
        for e in range(n):
            lower_cosine[e], lower_sine[e] = cosine[e], sine[e]
            cosine[e], sine[e] = x[e] * cosine[e] - y[e] * sine[e], x[e] * sine[e] + y[e] * cosine[e]


@compiled
def along_the_sphere(r, unit, n, slopes):
    """Turn derivatives by x, y and z of functions of the direction into those by the vectors to the neighbors."""
    for lm in range(slopes.shape[1]):
        gx, gy, gz = slopes[0, lm], slopes[1, lm], slopes[2, lm]
        for e in range(n):
            along = unit[0, e] * gx[e] + unit[1, e] * gy[e] + unit[2, e] * gz[e]
            gx[e] = (gx[e] - unit[0, e] * along) / r[e]
            gy[e] = (gy[e] - unit[1, e] * along) / r[e]
            gz[e] = (gz[e] - unit[2, e] * along) / r[e]


@compiled
def derivatives_of_function(own, falling, row, unit, slopes, lm, start, end, found, total):
    """Fill ``found`` [3, .] with the derivatives by the vectors of R_n Y_lm of the edges ``start`` .. ``end``.

    ``own``, ``falling`` and ``row`` [.] are R_n, dR_n/dr and Y_lm. Fills ``total`` [4] with the sums of the derivatives, and
    of the function itself.
    """
    x, y, z, value = 0.0, 0.0, 0.0, 0.0
    for e in range(start, end):
        along, across = falling[e] * row[e], own[e]
        fx = along * unit[0, e] + across * slopes[0, lm, e]
        fy = along * unit[1, e] + across * slopes[1, lm, e]
        fz = along * unit[2, e] + across * slopes[2, lm, e]
        found[0, e], found[1, e], found[2, e] = fx, fy, fz
        x += fx
        y += fy
        z += fz
        value += across * row[e]
    total[0], total[1], total[2], total[3] = x, y, z, value


@compiled
def add_strains(found, vec, start, end, row):
    """Fill ``row`` [9] with the derivatives by the strain, d vec_b = strain_ab vec_a."""
    xx, xy, xz, yx, yy, yz, zx, zy, zz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for e in range(start, end):
        x, y, z, fx, fy, fz = vec[0, e], vec[1, e], vec[2, e], found[0, e], found[1, e], found[2, e]
        xx += x * fx
        xy += x * fy
        xz += x * fz
        yx += y * fx
        yy += y * fy
        yz += y * fz
        zx += z * fx
        zy += z * fy
        zz += z * fz
    row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8] = xx, xy, xz, yx, yy, yz, zx, zy, zz


@compiled
def all_moments_and_derivatives(
    bounds,
    vec,
    kind,
    cutoff,
    inner,
    coefficients,
    l_max,
    legendre,
    place,
    place_of_center,
    strain,
    widths,
    moments,
    moved,
):
    """Fill the atomic basis ``moments`` [C, (l_max + 1)^2, species, n_radial] of all centers, and its derivatives.

    Parameters
    ----------
    place : array [E]
        Place of the neighbor among the atoms by whose coordinates the moments of its species are differentiated.
    place_of_center : array [species, C]
        Place of the center among the same atoms.
    strain : int
        1 for the derivatives by the strain as well, after those by the coordinates; or 0.
    widths : array [species]
        Number T of derivatives of the moments of each species.
    moved : array
        Derivatives [n_radial, (l_max + 1)^2, C, T], flat, of the moments of one species after the other.
    """
    n_radial, n_angular, n_centers = len(coefficients), (l_max + 1) ** 2, len(moments)
    n_species, most = len(widths), np.max(bounds[1:] - bounds[:-1])
    near, ends, column = np.empty(most, np.int64), np.empty(n_species + 1, np.int64), np.empty(most, np.int64)
    r, unit, own_vec, scratch = np.empty(most), np.empty((3, most)), np.empty((3, most)), np.empty((10, most))
    angular, slopes = np.empty((n_angular, most)), np.empty((3, n_angular, most))
    radial, fall, found = np.empty((n_radial, most)), np.empty((n_radial, most)), np.empty((3, most))
    total = np.empty(4)
    for c in range(n_centers):
        n_edges = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, n_species, near, ends, r, unit)
        radial_functions(r, n_edges, cutoff, inner, coefficients, n_radial, radial, fall, scratch)
        harmonics(unit, n_edges, l_max, legendre, angular, scratch)
        harmonic_slopes(unit, n_edges, l_max, legendre, slopes, scratch)
        along_the_sphere(r, unit, n_edges, slopes)
        for e in range(n_edges):
            column[e] = 3 * place[near[e]]
            for a in range(3):
                own_vec[a, e] = vec[a, near[e]]
        start_of_species = 0
        for k in range(n_species):
            i, j, width, own = ends[k], ends[k + 1], widths[k], 3 * place_of_center[k, c]
            for n in range(n_radial):
                for lm in range(n_angular):
                    first = start_of_species + ((n * n_angular + lm) * n_centers + c) * width
                    row = moved[first : first + width]
                    row[:] = 0.0
                    derivatives_of_function(radial[n], fall[n], angular[lm], unit, slopes, lm, i, j, found, total)
                    for e in range(i, j):
                        row[column[e]] += found[0, e]
                        row[column[e] + 1] += found[1, e]
                        row[column[e] + 2] += found[2, e]
                    for a in range(3):  # the center moves against its neighbors
                        row[own + a] -= total[a]
                    moments[c, lm, k, n] = total[3]
                    if strain:
                        add_strains(found, own_vec, i, j, row[width - 9 :])
            start_of_species += n_radial * n_angular * n_centers * width
