"""From neighbors to the numbers of U_j and back as compiled loops over vectors, one center per lane.

The formulas are those of ``sphere`` and ``program``. Arrays [rows, lanes], whose rows are vectors:

- ``near`` [QUANTITIES K]: by quantity, x, y, z, r, kappa, w of the K nearest neighbors of each center; then Re and Im of
  a and b, and w f; K is ``n_slots``;
- ``left`` [4 L], ``right`` and ``bare`` [4 (2 J + 1)]: a^p s^n, b^q w and b^q of four neighbors, see Layout;
- ``moments`` and ``state``, U and sums and differences of its rows: see Layout.
"""

import numpy as np

from ase_mlelec.compiled import compiled
from ase_mlelec.lanes import load, spread, store

X, Y, Z, R, KAPPA, WEIGHT, A_RE, A_IM, B_RE, B_IM, FADED = range(11)
QUANTITIES = 11
TERMS = 16  # of power series
COSINE, SINE, SLOPE, NUMBERS = range(0, 4 * TERMS, TERMS)  # begin of the rows of ``series``, see Layout


@compiled
def gather(vec, kind, shells, start, near, slot):
    """Neighbors of the centers from ``start`` on within their cutoffs.

    Returns their largest number, up to a multiple of four. Lanes and neighbors that are not used have weight 0.
    ``shells`` [species, 3] are cutoffs, weights and kappa; ``slot`` [K, lanes] gets the places of the neighbors, or -1.
    """
    n_slots, lanes = slot.shape
    most = 0
    for lane in range(lanes):
        count = 0
        if start + lane < vec.shape[1]:
            p = start + lane
            for k in range(vec.shape[2]):
                x, y, z = vec[0, p, k], vec[1, p, k], vec[2, p, k]
                square, cutoff = x * x + y * y + z * z, shells[kind[p, k], 0]
                if square < cutoff * cutoff:
                    near[X * n_slots + count, lane] = x
                    near[Y * n_slots + count, lane] = y
                    near[Z * n_slots + count, lane] = z
                    near[R * n_slots + count, lane] = np.sqrt(square)
                    near[KAPPA * n_slots + count, lane] = shells[kind[p, k], 2]
                    near[WEIGHT * n_slots + count, lane] = shells[kind[p, k], 1]
                    slot[count, lane] = k
                    count += 1
        most = max(most, count)
        slot[count:, lane] = -1
    most = (most + 3) // 4 * 4
    for lane in range(lanes):
        for k in range(most):
            if slot[k, lane] < 0:
                for quantity in range(WEIGHT + 1):
                    near[quantity * n_slots + k, lane] = 0
    return most


@compiled
def scatter(near, slot, n_near, start, gradient):
    """Put the derivatives by x, y, z that ``near`` has into ``gradient`` [3, C, K], of the centers from ``start`` on."""
    n_slots, lanes = slot.shape
    for lane in range(lanes):
        for n in range(n_near):
            if slot[n, lane] >= 0:
                for direction in range(3):
                    gradient[direction, start + lane, slot[n, lane]] = near[direction * n_slots + n, lane]


@compiled
def power_series(series, place, near, row):
    """Power series that begins at a place of ``series``; the variable is a row of ``near``."""
    x, total = load(near, row), spread(series, place + TERMS - 1)
    for n in range(TERMS - 2, -1, -1):
        total = total * x + spread(series, place + n)
    return total


@compiled
def on_sphere(near, n_slots, n_near, series, switch, scalars):
    """Fill A_RE .. FADED of ``near``: (a, b) and w f of the neighbors. ``scalars`` are 1/2, and 1/rfac0."""
    half, one = spread(scalars, 0), spread(series, COSINE)
    for k in range(n_near):
        kappa, faded = load(near, KAPPA * n_slots + k), FADED * n_slots + k
        h = half * kappa * load(near, R * n_slots + k)
        square, weight = h * h, load(near, WEIGHT * n_slots + k)
        store(near, faded, square)
        sine = power_series(series, SINE, near, faded)
        s = kappa * sine * power_series(series, COSINE, near, faded)
        store(near, A_RE * n_slots + k, one - (square + square) * sine * sine)
        store(near, A_IM * n_slots + k, s * load(near, Z * n_slots + k))
        store(near, B_RE * n_slots + k, half - half - s * load(near, Y * n_slots + k))
        store(near, B_IM * n_slots + k, s * load(near, X * n_slots + k))
        if switch:
            u = h * spread(scalars, 1)
            store(near, faded, u * u)
            cosine = power_series(series, COSINE, near, faded)
            weight *= cosine * cosine
        store(near, faded, weight)


@compiled
def fill_powers(near, n_slots, k, starts, series, left, right, bare):
    """Fill the powers of the neighbors k .. k + 4; ``starts``: row of a^0 s^n."""
    degree, one = (len(bare) // 4 - 1) // 2, spread(series, COSINE)
    for i in range(4):
        a_re, a_im = load(near, A_RE * n_slots + k + i), load(near, A_IM * n_slots + k + i)
        b_re, b_im = load(near, B_RE * n_slots + k + i), load(near, B_IM * n_slots + k + i)
        weight = load(near, FADED * n_slots + k + i)
        store(left, i, one)
        store(bare, i, one)
        store(right, i, weight)
        x, y, u, v = one, one - one, one, one - one
        for p in range(1, degree + 1):
            x, y = x * a_re - y * a_im, x * a_im + y * a_re
            u, v = u * b_re - v * b_im, u * b_im + v * b_re
            store(left, (2 * p - 1) * 4 + i, x)
            store(left, 2 * p * 4 + i, y)
            store(bare, (2 * p - 1) * 4 + i, u)
            store(bare, 2 * p * 4 + i, v)
            store(right, (2 * p - 1) * 4 + i, u * weight)
            store(right, 2 * p * 4 + i, v * weight)
        s = a_re * a_re + a_im * a_im - b_re * b_re - b_im * b_im
        for n in range(1, len(starts)):
            for m in range(2 * (degree - 2 * n) + 1):
                store(left, (starts[n] + m) * 4 + i, s * load(left, (starts[n - 1] + m) * 4 + i))


@compiled
def add_moments(rows, left, right, moments):
    """Add the moments of four neighbors; ``rows`` [L, 2] are first moment, and number of moments."""
    for row in range(len(rows)):
        start, count = rows[row, 0], rows[row, 1]
        l0, l1, l2, l3 = load(left, 4 * row), load(left, 4 * row + 1), load(left, 4 * row + 2), load(left, 4 * row + 3)
        for c in range(count):
            first = l0 * load(right, 4 * c) + l1 * load(right, 4 * c + 1)
            second = l2 * load(right, 4 * c + 2) + l3 * load(right, 4 * c + 3)
            store(moments, start + c, load(moments, start + c) + (first + second))


@compiled
def add_sparse(matrix, values, start, found, first):
    """Add matrix times the rows of ``values`` from ``start`` on to the rows of ``found`` from ``first`` on."""
    ends, columns, factors = matrix
    for i in range(len(ends) - 1):
        total = load(found, first + i)
        for e in range(ends[i], ends[i + 1]):
            total += spread(factors, e) * load(values, start + columns[e])
        store(found, first + i, total)


@compiled
def fill_state(vec, kind, shells, scalars, switch, tables, scratch, start, state):
    """Fill ``state`` [blocks, rows, lanes] of the centers from ``start`` on: U, sums and differences of its rows.

    Parameters
    ----------
    vec : array [3, C, K], Å
    kind : array [C, K]
    tables : tuple
        ``neighbors`` of Layout.
    scratch : tuple
        near, slot, left, right, bare, moments.
    """
    (rows, _, starts, series, identity, to_u, to_sums, _, _), (near, slot, left, right, bare, moments) = tables, scratch
    n_slots, lanes = slot.shape
    for block in range(len(state)):
        n_near = gather(vec, kind, shells, start + block * lanes, near, slot)
        on_sphere(near, n_slots, n_near, series, switch, scalars)
        moments[:] = 0
        for k in range(0, n_near, 4):
            fill_powers(near, n_slots, k, starts, series, left, right, bare)
            add_moments(rows, left, right, moments)
        own = state[block]
        for i in range(len(identity)):
            store(own, i, spread(identity, i))
        own[len(identity) :] = 0
        add_sparse(to_u, moments, 0, own, 0)
        add_sparse(to_sums, own, 0, own, len(identity))


# derivatives --------------------------------------------------------------------------------------------------------


@compiled
def moments_pull_back(rows, i, left, right, of_moments, of_left, of_right):
    """Fill the derivatives by a^p s^n and by b^q w of the neighbor i of four."""
    for c in range(len(of_right)):
        store(of_right, c, load(left, i) - load(left, i))
    row = 0
    while row < len(rows):
        start, count, factor = rows[row, 0], rows[row, 1], load(left, 4 * row + i)
        total = factor - factor
        if row + 1 == len(rows) or rows[row + 1, 1] != count:
            for c in range(count):
                own = load(of_moments, start + c)
                total += own * load(right, 4 * c + i)
                store(of_right, c, load(of_right, c) + own * factor)
            store(of_left, row, total)
            row += 1
            continue
        # Re and Im together need half the stores
        next_start, next_factor, next_total = rows[row + 1, 0], load(left, 4 * row + 4 + i), total
        for c in range(count):
            own, following, power = (
                load(of_moments, start + c),
                load(of_moments, next_start + c),
                load(right, 4 * c + i),
            )
            total += own * power
            next_total += following * power
            store(of_right, c, load(of_right, c) + (own * factor + following * next_factor))
        store(of_left, row, total)
        store(of_left, row + 1, next_total)
        row += 2


@compiled
def powers_pull_back(series, of_powers, powers, i):
    """Derivatives by Re and Im of z from those by Re and Im of z^p; ``powers`` [4 (2 J + 1)] are of four numbers z."""
    real, imaginary = load(of_powers, 1), load(of_powers, 2)
    for p in range(2, (len(powers) // 4 + 1) // 2):
        factor = spread(series, NUMBERS + p)
        g, h = factor * load(of_powers, 2 * p - 1), factor * load(of_powers, 2 * p)
        x, y = load(powers, (2 * p - 3) * 4 + i), load(powers, (2 * p - 2) * 4 + i)
        real += g * x + h * y
        imaginary += h * x - g * y
    return real, imaginary


@compiled
def neighbor_pull_back(near, n_slots, k, highest, starts, series, left, bare, of_left, of_right):
    """Derivatives by (a, b) and w f of the neighbor k, in the place of A_RE .. FADED; ``highest`` [2 J + 1]: n by p."""
    i, two, weight = k % 4, spread(series, NUMBERS + 2), load(near, FADED * n_slots + k)
    s = load(left, 4 * starts[min(1, len(starts) - 1)] + i)
    of_s = of_weight = two - two
    for m in range(len(highest)):
        total = load(of_left, starts[highest[m]] + m)
        slope = two - two
        for n in range(highest[m] - 1, -1, -1):
            slope = slope * s + total
            total = total * s + load(of_left, starts[n] + m)
        of_s += slope * load(left, 4 * m + i)
        store(of_left, m, total)
        own = load(of_right, m)
        of_weight += own * load(bare, 4 * m + i)
        store(of_right, m, own * weight)
    of_s *= two
    real, imaginary = powers_pull_back(series, of_left, left[: len(bare)], i)
    store(near, A_RE * n_slots + k, real + of_s * load(near, A_RE * n_slots + k))
    store(near, A_IM * n_slots + k, imaginary + of_s * load(near, A_IM * n_slots + k))
    real, imaginary = powers_pull_back(series, of_right, bare, i)
    store(near, B_RE * n_slots + k, real - of_s * load(near, B_RE * n_slots + k))
    store(near, B_IM * n_slots + k, imaginary - of_s * load(near, B_IM * n_slots + k))
    store(near, FADED * n_slots + k, of_weight)


@compiled
def sphere_pull_back(near, n_slots, n_near, series, switch, scalars):
    """Derivatives by x, y, z of all neighbors, in the place of these."""
    half, two = spread(scalars, 0), spread(series, NUMBERS + 2)
    for k in range(n_near):
        x, y, z = load(near, X * n_slots + k), load(near, Y * n_slots + k), load(near, Z * n_slots + k)
        of_c, of_a_im = load(near, A_RE * n_slots + k), load(near, A_IM * n_slots + k)
        of_b_re, of_b_im = load(near, B_RE * n_slots + k), load(near, B_IM * n_slots + k)
        kappa, row, of_weight = load(near, KAPPA * n_slots + k), R * n_slots + k, load(near, FADED * n_slots + k)
        h = half * kappa * load(near, row)
        store(near, row, h * h)
        s = kappa * power_series(series, SINE, near, row) * power_series(series, COSINE, near, row)
        store(near, row, two * two * h * h)
        slope = kappa * kappa * kappa * power_series(series, SLOPE, near, row)
        radial = (of_a_im * z - of_b_re * y + of_b_im * x) * slope - of_c * kappa * s
        if switch:
            # w cos(u)^2 falls by w sin(2 u) du/dr, and sin(2 u)/r has no pole
            u, rate = h * spread(scalars, 1), half * kappa * spread(scalars, 1)
            store(near, row, u * u)
            fall = power_series(series, COSINE, near, row) * power_series(series, SINE, near, row) * rate * rate
            radial -= two * load(near, WEIGHT * n_slots + k) * of_weight * fall
        store(near, X * n_slots + k, radial * x + s * of_b_im)
        store(near, Y * n_slots + k, radial * y - s * of_b_re)
        store(near, Z * n_slots + k, radial * z + s * of_a_im)


@compiled
def fill_gradient(vec, kind, shells, scalars, switch, tables, scratch, start, of_state, gradient):
    """Fill ``gradient`` [3, C, K] of the centers from ``start`` on where there are neighbors.

    ``of_state`` are the derivatives by what ``fill_state`` fills, and is overwritten; other arguments as there.
    """
    rows, highest, starts, series, identity, _, _, from_u, from_sums = tables
    near, slot, left, right, bare, moments = scratch
    of_left, of_right = np.empty_like(left[: len(rows)]), np.empty_like(bare[: len(highest)])
    n_slots, lanes = slot.shape
    for block in range(len(of_state)):
        first = start + block * lanes
        n_near = gather(vec, kind, shells, first, near, slot)
        on_sphere(near, n_slots, n_near, series, switch, scalars)
        moments[:] = 0
        add_sparse(from_sums, of_state[block], len(identity), of_state[block], 0)
        add_sparse(from_u, of_state[block], 0, moments, 0)
        for k in range(n_near):
            if k % 4 == 0:
                fill_powers(near, n_slots, k, starts, series, left, right, bare)
            moments_pull_back(rows, k % 4, left, right, moments, of_left, of_right)
            neighbor_pull_back(near, n_slots, k, highest, starts, series, left, bare, of_left, of_right)
        sphere_pull_back(near, n_slots, n_near, series, switch, scalars)
        scatter(near, slot, n_near, first, gradient)
