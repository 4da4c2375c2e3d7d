"""Triple products of functions on SU(2) as compiled loops over vectors, one center per lane, and their derivatives.

Quadrature by pieces that stay in the processor's cache, TILE points of the sphere with all angles gamma at a time. A
``rule`` is a Rule of ``layout`` as a tuple. Arrays [rows, lanes], whose rows are vectors:

- ``state``: U, sums and differences of its rows, see Layout;
- ``planes`` [2 TILE B]: by block of the rule, cos parts of the points, then sin parts;
- ``f`` [2 TILE (angles + 1) n]: the functions by order; by angle, point, and sign of the angle. The rows after each order
  are not used: the same place of all orders would want the same place in the cache;
- ``products``: sums over points of f_j1 f_j2 f_j, then U_0 times the norms by order.
"""

from ase_mlelec.compiled import compiled
from ase_mlelec.descriptors.bispectrum.product_code import pull_back_at_points
from ase_mlelec.lanes import load, spread, store

STEP = 16  # points that are summed before the next product; divides 4 TILE


@compiled
def evaluate_planes(rule, tile, state, planes):
    """The planes at the points of a tile."""
    blocks, table, signs = rule[:3]
    for b in range(len(blocks)):
        at = 4 * (tile * table.shape[1] + blocks[b, 3])
        even0 = even1 = even2 = even3 = odd0 = odd1 = odd2 = odd3 = spread(signs, b) - spread(signs, b)
        for c in range(blocks[b, 0], blocks[b, 1]):
            x, place = load(state, c), at + 4 * c
            even0 += x * spread(table, place)
            even1 += x * spread(table, place + 1)
            even2 += x * spread(table, place + 2)
            even3 += x * spread(table, place + 3)
        for c in range(blocks[b, 1], blocks[b, 2]):
            x, place = load(state, c), at + 4 * c
            odd0 += x * spread(table, place)
            odd1 += x * spread(table, place + 1)
            odd2 += x * spread(table, place + 2)
            odd3 += x * spread(table, place + 3)
        sign = spread(signs, b)
        store(planes, 8 * b, even0 + odd0)
        store(planes, 8 * b + 1, sign * (even0 - odd0))
        store(planes, 8 * b + 2, even2 + odd2)
        store(planes, 8 * b + 3, sign * (even2 - odd2))
        store(planes, 8 * b + 4, even1 + odd1)
        store(planes, 8 * b + 5, sign * (even1 - odd1))
        store(planes, 8 * b + 6, even3 + odd3)
        store(planes, 8 * b + 7, sign * (even3 - odd3))


@compiled
def evaluate_functions(rule, planes, f):
    """The functions at the points of a tile, two angles of both signs and two points at a time."""
    _, _, signs, orders, gamma, _, _ = rule
    n_angles = gamma.shape[1]
    for order in range(len(orders) - 1):
        low, high = orders[order], orders[order + 1]
        for angle in range(0, n_angles, 2):
            for point in range(0, 4, 2):
                c0 = c1 = c2 = c3 = s0 = s1 = s2 = s3 = spread(signs, 0) - spread(signs, 0)
                for b in range(low, high):
                    place = 2 * (b * n_angles + angle)
                    cosine, sine = spread(gamma, place), spread(gamma, place + 1)
                    following, falling = spread(gamma, place + 2), spread(gamma, place + 3)
                    x, y = load(planes, 8 * b + point), load(planes, 8 * b + point + 1)
                    u, v = load(planes, 8 * b + 4 + point), load(planes, 8 * b + 5 + point)
                    c0 += x * cosine
                    c1 += y * cosine
                    c2 += x * following
                    c3 += y * following
                    s0 += u * sine
                    s1 += v * sine
                    s2 += u * falling
                    s3 += v * falling
                row = 8 * (order * (n_angles + 1) + angle) + 2 * point
                store(f, row, c0 + s0)
                store(f, row + 1, c0 - s0)
                store(f, row + 2, c1 + s1)
                store(f, row + 3, c1 - s1)
                store(f, row + 8, c2 + s2)
                store(f, row + 9, c2 - s2)
                store(f, row + 10, c3 + s3)
                store(f, row + 11, c3 - s3)


@compiled
def add_products(rule, f, products):
    """Add the products at the points of a tile, some points at a time, whose functions stay in the nearest cache."""
    _, _, _, _, gamma, quads, twos = rule
    n_points = 8 * gamma.shape[1]
    apart = n_points + 8
    for low in range(0, n_points, STEP):
        for quad in quads:
            i, j, row = quad[0] * apart, quad[1] * apart, quad[6]
            k, m, n, o = quad[2] * apart, quad[3] * apart, quad[4] * apart, quad[5] * apart
            t0, t1, t2, t3 = (
                load(products, row),
                load(products, row + 1),
                load(products, row + 2),
                load(products, row + 3),
            )
            for x in range(low, low + STEP):
                pair = load(f, i + x) * load(f, j + x)
                t0 += pair * load(f, k + x)
                t1 += pair * load(f, m + x)
                t2 += pair * load(f, n + x)
                t3 += pair * load(f, o + x)
            store(products, row, t0)
            store(products, row + 1, t1)
            store(products, row + 2, t2)
            store(products, row + 3, t3)
        for two in twos:
            i, j, row = two[0] * apart, two[1] * apart, two[4]
            k, m = two[2] * apart, two[3] * apart
            t0, t1 = load(products, row), load(products, row + 1)
            for x in range(low, low + STEP):
                pair = load(f, i + x) * load(f, j + x)
                t0 += pair * load(f, k + x)
                t1 += pair * load(f, m + x)
            store(products, row, t0)
            store(products, row + 1, t1)


@compiled
def add_all_products(state, rule, scratch, products):
    """Add the products of a rule to ``products`` [blocks, rows, lanes]; ``scratch``: planes, f."""
    planes, f = scratch
    for block in range(len(state)):
        for tile in range(len(rule[1])):
            evaluate_planes(rule, tile, state[block], planes)
            evaluate_functions(rule, planes, f)
            add_products(rule, f, products[block])


@compiled
def fill_components(state, tables, products, start, found):
    """Fill ``found`` [C, F] of the centers from ``start`` on from ``state`` and ``products`` [blocks, rows, lanes].

    ``tables`` is Components of ``layout`` as a tuple.
    """
    orders, multiplicity, places, scale, norms = tables
    lanes = state.shape[2]
    for block in range(len(state)):
        own, results, first = state[block], products[block], start + block * lanes
        for i in range(len(orders)):
            square = load(own, i) * load(own, i) * spread(multiplicity, i)
            store(results, norms + orders[i], load(results, norms + orders[i]) + square)
        for row in range(norms, len(results)):
            store(results, row, load(results, row) * load(own, 0))
        for lane in range(min(lanes, len(found) - first)):
            for c in range(len(places)):
                found[first + lane, c] = results[places[c], lane] * scale[c]


# derivatives --------------------------------------------------------------------------------------------------------


@compiled
def products_pull_back(rule, code, f, of_products, of_f):
    """Fill ``of_f`` with sums and differences of the derivatives by the functions at the two signs of the angles.

    ``code`` is Products of the rule.
    """
    n_points = 8 * rule[4].shape[1]
    for x in range(0, n_points, 2):
        pull_back_at_points(code, f, of_products, of_f, x, n_points + 8)


@compiled
def functions_pull_back(rule, of_f, of_planes):
    """Fill ``of_planes`` with the derivatives by the planes of a tile."""
    _, _, signs, orders, gamma, _, _ = rule
    n_angles = gamma.shape[1]
    for order in range(len(orders) - 1):
        for b in range(orders[order], orders[order + 1]):
            c0 = c1 = c2 = c3 = s0 = s1 = s2 = s3 = spread(signs, 0) - spread(signs, 0)
            for angle in range(n_angles):
                place, row = 2 * (b * n_angles + angle), 8 * (order * (n_angles + 1) + angle)
                cosine, sine = spread(gamma, place), spread(gamma, place + 1)
                c0 += cosine * load(of_f, row)
                s0 += sine * load(of_f, row + 1)
                c1 += cosine * load(of_f, row + 2)
                s1 += sine * load(of_f, row + 3)
                c2 += cosine * load(of_f, row + 4)
                s2 += sine * load(of_f, row + 5)
                c3 += cosine * load(of_f, row + 6)
                s3 += sine * load(of_f, row + 7)
            store(of_planes, 8 * b, c0)
            store(of_planes, 8 * b + 1, c1)
            store(of_planes, 8 * b + 2, c2)
            store(of_planes, 8 * b + 3, c3)
            store(of_planes, 8 * b + 4, s0)
            store(of_planes, 8 * b + 5, s1)
            store(of_planes, 8 * b + 6, s2)
            store(of_planes, 8 * b + 7, s3)


@compiled
def planes_pull_back(rule, tile, of_planes, of_state):
    """Add the derivatives by sums and differences of rows."""
    blocks, table, signs = rule[:3]
    for b in range(len(blocks)):
        at, sign = 4 * (tile * table.shape[1] + blocks[b, 3]), spread(signs, b)
        x0, y0 = load(of_planes, 8 * b), sign * load(of_planes, 8 * b + 1)
        x2, y2 = load(of_planes, 8 * b + 2), sign * load(of_planes, 8 * b + 3)
        x1, y1 = load(of_planes, 8 * b + 4), sign * load(of_planes, 8 * b + 5)
        x3, y3 = load(of_planes, 8 * b + 6), sign * load(of_planes, 8 * b + 7)
        e0, e1, e2, e3 = x0 + y0, x1 + y1, x2 + y2, x3 + y3
        for c in range(blocks[b, 0], blocks[b, 1]):
            k = at + 4 * c
            first = e0 * spread(table, k) + e1 * spread(table, k + 1)
            second = e2 * spread(table, k + 2) + e3 * spread(table, k + 3)
            store(of_state, c, load(of_state, c) + (first + second))
        e0, e1, e2, e3 = x0 - y0, x1 - y1, x2 - y2, x3 - y3
        for c in range(blocks[b, 1], blocks[b, 2]):
            k = at + 4 * c
            first = e0 * spread(table, k) + e1 * spread(table, k + 1)
            second = e2 * spread(table, k + 2) + e3 * spread(table, k + 3)
            store(of_state, c, load(of_state, c) + (first + second))


@compiled
def components_pull_back(state, tables, start, of_components, of_products, of_state):
    """Fill ``of_products``, and U in ``of_state`` by the norms; arguments as in ``fill_components``."""
    orders, multiplicity, places, scale, norms = tables
    lanes = state.shape[2]
    of_products[:] = 0
    for block in range(len(state)):
        own, of_own, of_results, first = state[block], of_state[block], of_products[block], start + block * lanes
        for lane in range(min(lanes, len(of_components) - first)):
            for c in range(len(places)):
                of_results[places[c], lane] = of_components[first + lane, c] * scale[c]
        of_first = load(own, 0) - load(own, 0)
        for i in range(len(orders)):
            factor = load(of_results, norms + orders[i]) * spread(multiplicity, i) * load(own, i)
            store(of_own, i, (factor + factor) * load(own, 0))
            of_first += factor * load(own, i)
        store(of_own, 0, load(of_own, 0) + of_first)


@compiled
def all_products_pull_back(state, rule, code, scratch, of_products, of_state):
    """Add the derivatives by sums and differences of rows from those by the products of a rule.

    ``code`` is Products of the rule; ``scratch`` has a second f; other arguments as in ``add_all_products``.
    """
    planes, f, of_f = scratch
    for block in range(len(state)):
        for tile in range(len(rule[1])):
            evaluate_planes(rule, tile, state[block], planes)
            evaluate_functions(rule, planes, f)
            products_pull_back(rule, code, f, of_products[block], of_f)
            functions_pull_back(rule, of_f, planes)
            planes_pull_back(rule, tile, planes, of_state[block])
