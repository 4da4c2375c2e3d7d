"""ACE invariants from the atomic basis, as compiled loops: features, or sums with given weights and their derivatives.

A vector holds the same number of several centers. The formulas and the tables are those of ``product_tables``.
``moments`` [C, species n_radial, (l_max + 1)^2] is the atomic basis A; ``block`` [columns lm + 1, lanes] that of the centers
of one vector, and in its last row the number 1.
"""

from ase_mlelec.compiled import compiled
from ase_mlelec.lanes import BYTES, empty_rows, every, load, spread, store

LANES = BYTES // 8
FACTORS = 16  # of a product, at a time: their coefficients stay in the nearest cache


@compiled
def load_centers(moments, start, block):
    """Copy the moments of the centers from ``start`` on to a block; centers behind the last have zeros."""
    flat = moments.reshape((len(moments), -1))
    width = flat.shape[1]
    for lane in range(LANES):
        if start + lane < len(flat):
            for k in range(width):
                block[k, lane] = flat[start + lane, k]
        else:
            for k in range(width):
                block[k, lane] = 0.0


@compiled
def load_weights(weights, row, start, alike, features, found):
    """Copy the weights of ``features`` [F] of the centers from ``start`` on to ``found`` [F, lanes].

    ``alike`` says that all of them have the same; then every weight is read once.
    """
    if alike:
        same = weights[row[start]]
        for k in range(len(features)):
            store(found, k, every(load(found, k), same[features[k]]))
        return
    for lane in range(LANES):
        if start + lane < len(row):
            own = weights[row[start + lane]]
            for k in range(len(features)):
                found[k, lane] = own[features[k]]
        else:
            for k in range(len(features)):
                found[k, lane] = 0.0


@compiled
def coefficients(begin, end, block, places, shapes, ends, entries, values, pairs, found):
    """Coefficients of the factors ``begin`` .. ``end``, one after the other; ``pairs`` is scratch.

    The arrays of tables are arguments of their own: numba counts references where it takes a tuple apart.
    """
    base = shapes[begin, 3] if end > begin else 0
    for p in range(begin, end):
        first, n_first, second, n_second = places[p, 0], places[p, 1], places[p, 2], places[p, 3]
        for i in range(n_first):
            own = load(block, first + i)
            for j in range(n_second):
                store(pairs, i * n_second + j, own * load(block, second + j))
        row, start = shapes[p, 0], shapes[p, 3] - base
        for k in range(shapes[p, 2]):
            total = every(load(block, 0), 0.0)
            for e in range(ends[row + k], ends[row + k + 1]):
                total += spread(values, e) * load(pairs, entries[e])
            store(found, start + k, total)


@compiled
def coefficients_pull_back(
    begin, end, block, places, shapes, ends, entries, values, of_found, offset, of_block, block_offset, again
):
    """Add the derivatives by the coefficients of factors to those by the block; they begin at the two offsets.

    ``again`` is None, or a pair of numbers that are added to the offsets for other derivatives, which take little more time
    in the same sweep; numba compiles both cases apart.
    """
    base = shapes[begin, 3] if end > begin else 0
    for p in range(begin, end):
        first, n_first, second, n_second = places[p, 0], places[p, 1], places[p, 2], places[p, 3]
        row, start = shapes[p, 1], shapes[p, 3] - base + offset
        for i in range(n_first):
            own = load(block, first + i)
            of_own = of_own_2 = every(own, 0.0)
            for j in range(n_second):
                other, at = load(block, second + j), block_offset + second + j
                total = total_2 = every(own, 0.0)
                for e in range(ends[row], ends[row + 1]):
                    value = spread(values, e)
                    total += value * load(of_found, start + entries[e])
                    if again is not None:
                        total_2 += value * load(of_found, start + entries[e] + again[0])
                of_own += total * other
                store(of_block, at, load(of_block, at) + total * own)
                if again is not None:
                    of_own_2 += total_2 * other
                    store(of_block, at + again[1], load(of_block, at + again[1]) + total_2 * own)
                row += 1
            at = block_offset + first + i
            store(of_block, at, load(of_block, at) + of_own)
            if again is not None:
                store(of_block, at + again[1], load(of_block, at + again[1]) + of_own_2)


@compiled
def pull_back(begin, end, block, places, shapes, table, of_found, size, n_weights, of_block):
    """``coefficients_pull_back`` of all weights, whose derivatives are ``size`` numbers each, by two at a time."""
    ends, entries, values = table
    width = len(block)
    for s in range(0, n_weights - 1, 2):
        at, to, again = s * size, s * width, (size, width)
        coefficients_pull_back(
            begin, end, block, places, shapes, ends, entries, values, of_found, at, of_block, to, again
        )
    if n_weights % 2:
        at, to = (n_weights - 1) * size, (n_weights - 1) * width
        coefficients_pull_back(
            begin, end, block, places, shapes, ends, entries, values, of_found, at, of_block, to, None
        )


@compiled
def add_products(a, b, n, own, seconds, weights, place, of_own, own_offset, of_seconds, seconds_offset, again):
    """Add the derivatives of a weighted scalar product of ``n`` coefficients from ``a`` and ``b`` on by both factors.

    ``again`` as in ``coefficients_pull_back``, with what is added to the places of the weight and of both derivatives.
    """
    weight, to, other = load(weights, place), own_offset + a, seconds_offset + b
    weight_2 = load(weights, place if again is None else place + again[0])
    for i in range(n):
        first, second = load(own, a + i), load(seconds, b + i)
        store(of_own, to + i, load(of_own, to + i) + weight * second)
        store(of_seconds, other + i, load(of_seconds, other + i) + weight * first)
        if again is not None:
            store(of_own, to + i + again[1], load(of_own, to + i + again[1]) + weight_2 * second)
            at = other + i + again[2]
            store(of_seconds, at, load(of_seconds, at) + weight_2 * first)


@compiled
def scalar_products(
    begin, end, shapes, ends, term_ends, terms, own, seconds, weights, n_weights, of_own, of_seconds, sums, found
):
    """Products of the first factors ``begin`` .. ``end``, with coefficients ``own``, and what they add to all sums.

    ``weights`` [n_weights F, lanes]; ``of_own`` and ``of_seconds`` are sorted by the weights first, as ``sums`` [n_weights,
    lanes]. ``found`` [F, lanes] are the products.
    """
    base, n_own, n_seconds, n_features = shapes[begin, 3], len(own), len(seconds), len(found)
    for p in range(begin, end):
        start = shapes[p, 3] - base
        for k in range(ends[p], ends[p + 1]):
            total = every(load(own, 0), 0.0)
            for t in range(term_ends[k], term_ends[k + 1]):
                a, b = start + terms[t, 0], terms[t, 1]
                for i in range(terms[t, 2]):
                    total += load(own, a + i) * load(seconds, b + i)
            store(found, k, total)
            for s in range(n_weights):
                store(sums, s, load(sums, s) + load(weights, s * n_features + k) * total)
            for t in range(term_ends[k], term_ends[k + 1]):
                a, b, n = start + terms[t, 0], terms[t, 1], terms[t, 2]
                for s in range(0, n_weights - 1, 2):
                    at, again = s * n_features + k, (n_features, n_own, n_seconds)
                    add_products(
                        a, b, n, own, seconds, weights, at, of_own, s * n_own, of_seconds, s * n_seconds, again
                    )
                if n_weights % 2:
                    s = n_weights - 1
                    at = s * n_features + k
                    add_products(a, b, n, own, seconds, weights, at, of_own, s * n_own, of_seconds, s * n_seconds, None)


@compiled
def unload(of_block, start, s, found):
    """Add the derivatives by a block to those of the centers from ``start`` on, ``found`` [C, columns lm]."""
    width = found.shape[1]
    for lane in range(LANES):
        if start + lane < len(found):
            own = found[start + lane]
            for k in range(width):
                own[k] += of_block[s * (width + 1) + k, lane]


@compiled
def contract(moments, products, most, n_seconds, weights, row, sums, of_moments, features):
    """Add sums of the features with ``weights`` to ``sums``, and their derivatives to ``of_moments``; fill the features.

    Parameters
    ----------
    products : Products
    most : tuple of int
        Largest number of coefficients of FACTORS first factors, and of pairs of numbers of any factor.
    n_seconds : int
        Number of coefficients of all second factors.
    weights : array [W, R, F]
    row : array [C]
        Which of the R weights a center has.
    sums : array [W, C]
    of_moments : array [W, C, columns (l_max + 1)^2]
    features : array [C, F], or [0, F] where they are not wanted
    """
    first, second, ends, places, term_ends, terms = products
    n_weights, n_centers, width = len(weights), len(moments), moments.shape[1] * moments.shape[2]
    block, pairs = empty_rows(width + 1, LANES), empty_rows(most[1], LANES)
    of_block = empty_rows(n_weights * (width + 1), LANES)
    own, of_own = empty_rows(most[0], LANES), empty_rows(n_weights * most[0], LANES)
    seconds, of_seconds = empty_rows(n_seconds, LANES), empty_rows(n_weights * n_seconds, LANES)
    of_lanes, found = empty_rows(n_weights * len(places), LANES), empty_rows(len(places), LANES)
    whole, before, n_first, n_second = empty_rows(max(n_weights, 1), LANES), -1, len(first[0]), len(second[0])
    (first_places, first_shapes, forth, back), (second_places, second_shapes, forth_2, back_2) = first, second
    block[width] = 1.0
    for start in range(0, n_centers, LANES):
        load_centers(moments, start, block)
        alike = min(start + LANES, n_centers) - start == LANES
        for lane in range(1, LANES):
            alike = alike and row[start + lane] == row[start]
        if not (alike and row[start] == before):
            for s in range(n_weights):
                load_weights(weights[s], row, start, alike, places, of_lanes[s * len(places) : (s + 1) * len(places)])
            before = row[start] if alike else -1
        of_block[:] = 0.0
        of_seconds[:] = 0.0
        whole[:] = 0.0
        coefficients(0, n_second, block, second_places, second_shapes, *forth_2, pairs, seconds)
        for p in range(0, n_first, FACTORS):
            end = min(p + FACTORS, n_first)
            coefficients(p, end, block, first_places, first_shapes, *forth, pairs, own)
            of_own[:] = 0.0
            scalar_products(
                p,
                end,
                first_shapes,
                ends,
                term_ends,
                terms,
                own,
                seconds,
                of_lanes,
                n_weights,
                of_own,
                of_seconds,
                whole,
                found,
            )
            pull_back(p, end, block, first_places, first_shapes, back, of_own, most[0], n_weights, of_block)
        pull_back(0, n_second, block, second_places, second_shapes, back_2, of_seconds, n_seconds, n_weights, of_block)
        for s in range(n_weights):
            unload(of_block, start, s, of_moments[s])
            for lane in range(min(LANES, n_centers - start)):
                sums[s, start + lane] += whole[s, lane]
        for lane in range(min(LANES, len(features) - start)):
            for k in range(len(places)):
                features[start + lane, places[k]] = found[k, lane]
