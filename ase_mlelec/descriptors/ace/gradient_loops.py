"""Derivatives of the features by the coordinates of all atoms, summed over the centers, as compiled loops.

By the chain rule: ``slopes_of_features`` are the derivatives dB/dA of every feature by the few numbers A of the atomic basis
that it is a product of, for as many centers as a vector has lanes. ``add_changes`` multiplies those of one center with
dA/dr of its neighbors, of which a vector has as many as lanes, and adds the products to the columns of these atoms. The
formulas are those of ``moments``; arguments that are not described here are those of ``edge_loops`` and ``loops``.
"""

import numpy as np

from ase_mlelec.compiled import compiled
from ase_mlelec.descriptors.ace.loops import LANES, coefficients, coefficients_pull_back, load_centers
from ase_mlelec.descriptors.edge_loops import harmonics, most_slots, radial_functions, sort_edges
from ase_mlelec.lanes import empty_rows, every, load, spread, store

TOGETHER = 32  # features whose derivatives stay in the nearest cache


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
def slopes_of_features(start, moments, products, most, n_seconds, second_of, part_ends, parts, found):
    """Fill ``found`` [numbers, lanes] with dB/dA of all features of a coupling, at the centers from ``start`` on.

    Parameters
    ----------
    products, most, n_seconds
        As in ``loops.contract``.
    second_of : array [F]
        Second factor of every product.
    part_ends : array [F + 1]
        The densities of product k are part_ends[k] .. part_ends[k + 1] of ``parts``.
    parts : array [., 4]
        Of every density: place of its first number in a block of A, how many they are, its species, and the place of the
        first of its functions R_n Y_lm.
    """
    first, second, ends, _, term_ends, terms = products
    width, n_first, n_second = moments.shape[1] * moments.shape[2], len(first[0]), len(second[0])
    (first_places, first_shapes, forth, back), (second_places, second_shapes, forth_2, back_2) = first, second
    block, of_block = empty_rows(width + 1, LANES), empty_rows(width + 1, LANES)
    pairs, own, of_own = empty_rows(most[1], LANES), empty_rows(most[0], LANES), empty_rows(most[0], LANES)
    seconds, of_second = empty_rows(n_seconds, LANES), empty_rows(n_seconds, LANES)
    block[width] = 1.0
    load_centers(moments, start, block)
    coefficients(0, n_second, block, second_places, second_shapes, *forth_2, pairs, seconds)
    at = 0
    for p in range(n_first):
        coefficients(p, p + 1, block, first_places, first_shapes, *forth, pairs, own)
        for k in range(ends[p], ends[p + 1]):
            q = second_of[k]
            of_own[: first_shapes[p, 2]] = 0.0
            of_second[: second_shapes[q, 2]] = 0.0
            for t in range(term_ends[k], term_ends[k + 1]):
                a, b = terms[t, 0], terms[t, 1]
                for i in range(terms[t, 2]):
                    store(of_own, a + i, load(seconds, b + i))
                    store(of_second, b + i - second_shapes[q, 3], load(own, a + i))
            for part in range(part_ends[k], part_ends[k + 1]):
                of_block[parts[part, 0] : parts[part, 0] + parts[part, 1]] = 0.0
            of_block[width] = 0.0
            coefficients_pull_back(p, p + 1, block, first_places, first_shapes, *back, of_own, 0, of_block, 0, None)
            coefficients_pull_back(
                q, q + 1, block, second_places, second_shapes, *back_2, of_second, 0, of_block, 0, None
            )
            for part in range(part_ends[k], part_ends[k + 1]):
                for i in range(parts[part, 1]):
                    store(found, at, load(of_block, parts[part, 0] + i))
                    at += 1


@compiled
def functions_of_vector(v, radial, fall, angular, slopes, unit, found):
    """Fill ``found`` [n_radial (l_max + 1)^2 3, lanes] with the derivatives of R_n Y_lm by the edges of vector ``v``."""
    n_angular, per_row = len(angular), unit.shape[1] // LANES
    for n in range(len(radial)):
        own, falling = load(radial, n * per_row + v), load(fall, n * per_row + v)
        for lm in range(n_angular):
            along, row = falling * load(angular, lm * per_row + v), 3 * (n * n_angular + lm)
            for a in range(3):
                across = own * load(slopes, (a * n_angular + lm) * per_row + v)
                store(found, row + a, along * load(unit, a * per_row + v) + across)


@compiled
def add_products(
    known, order, part_ends, parts, starts, species, functions, near, v, vec, columns, own, strain, result
):
    """Add dB/dA times dA/dr of the neighbors of vector ``v``, which have one ``species``, to ``result`` [T, F].

    ``known`` is dB/dA of the center, ``columns`` [E] and ``own`` are the first columns of the neighbors and of the center.
    """
    moved, n_near = empty_rows(3 * TOGETHER, LANES), 0
    while n_near < LANES and near[v * LANES + n_near] >= 0:
        n_near += 1
    for begin in range(0, len(order), TOGETHER):
        end = min(begin + TOGETHER, len(order))
        for f in range(begin, end):
            k, at = order[f], f - begin
            x, y, z = every(load(functions, 0), 0.0), every(load(functions, 0), 0.0), every(load(functions, 0), 0.0)
            for part in range(part_ends[k], part_ends[k + 1]):
                if parts[part, 2] == species:
                    first, row = starts[part], 3 * parts[part, 3]
                    for i in range(parts[part, 1]):
                        slope = spread(known, first + i)
                        x += slope * load(functions, row + 3 * i)
                        y += slope * load(functions, row + 3 * i + 1)
                        z += slope * load(functions, row + 3 * i + 2)
            store(moved, at, x)
            store(moved, TOGETHER + at, y)
            store(moved, 2 * TOGETHER + at, z)
        for e in range(n_near):
            edge = near[v * LANES + e]
            for a in range(3):
                of_neighbor, of_center = result[columns[edge] + a, begin:end], result[own + a, begin:end]
                for f in range(end - begin):
                    of_neighbor[f] += moved[a * TOGETHER + f, e]
                for f in range(end - begin):
                    of_center[f] -= moved[a * TOGETHER + f, e]  # it moves against its neighbors
                if strain:
                    for b in range(3):
                        of_strain = result[len(result) - 9 + 3 * b + a, begin:end]
                        for f in range(end - begin):
                            of_strain[f] += vec[b, edge] * moved[a * TOGETHER + f, e]


@compiled
def add_changes(
    begin,
    end,
    bounds,
    vec,
    kind,
    cutoff,
    inner,
    coefficients,
    l_max,
    legendre,
    slopes_of_lanes,
    order,
    part_ends,
    parts,
    starts,
    columns,
    own_columns,
    species,
    n_species,
    strain,
    first,
    result,
):
    """Add the derivatives of the features of the centers ``begin`` .. ``end`` to ``result`` [T, species, all F].

    Parameters
    ----------
    slopes_of_lanes : array [numbers, lanes]
        What ``slopes_of_features`` fills, with the same ``part_ends`` and ``parts``.
    order : array [F]
        Products in the order of the features, the first of which is number ``first`` of all.
    starts : array
        Where the slopes by each of the ``parts`` begin.
    columns, own_columns : array [E], [C]
        First of the three columns T of the neighbor, and of the center.
    species : array [C]
        Species of the centers.
    strain : int
        1 for the derivatives by the strain as well, in the last nine columns; or 0.
    """
    n_radial, n_angular = len(coefficients), (l_max + 1) ** 2
    most = most_slots(bounds[begin : end + 1], n_species)
    near, ends = np.empty(most, np.int64), np.empty(n_species + 1, np.int64)
    r, unit, scratch = empty_rows(1, most), empty_rows(3, most), np.empty((8, most))
    angular, slopes = empty_rows(n_angular, most), np.empty((3, n_angular, most))
    radial, fall = empty_rows(n_radial, most), empty_rows(n_radial, most)
    functions, known = empty_rows(3 * n_radial * n_angular, LANES), np.empty(len(slopes_of_lanes))
    for c in range(begin, end):
        for i in range(len(known)):
            known[i] = slopes_of_lanes[i, c - begin]
        n = sort_edges(vec, kind, bounds[c], bounds[c + 1], cutoff, near, ends, r, unit)
        radial_functions(r, n, cutoff, inner, coefficients, radial, fall)
        harmonics(unit, n, l_max, legendre, angular)
        harmonic_slopes(unit, n * LANES, l_max, legendre, slopes, scratch)
        along_the_sphere(r[0], unit, n * LANES, slopes)
        own = result[:, species[c], first : first + len(order)]
        for k in range(n_species):
            for v in range(ends[k], ends[k + 1]):
                functions_of_vector(v, radial, fall, angular, slopes, unit, functions)
                add_products(
                    known,
                    order,
                    part_ends,
                    parts,
                    starts,
                    k,
                    functions,
                    near,
                    v,
                    vec,
                    columns,
                    own_columns[c],
                    strain,
                    own,
                )
