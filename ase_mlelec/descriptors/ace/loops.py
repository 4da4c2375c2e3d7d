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
def load_weights(weights, row, start, features, found):
    """Copy the weights of ``features`` [F] of the centers from ``start`` on to ``found`` [F, lanes]."""
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
    begin, end, block, places, shapes, ends, entries, values, of_found, offset, of_block, block_offset
):
    """Add the derivatives by the coefficients of factors to those by the block; they begin at the two offsets."""
    base = shapes[begin, 3] if end > begin else 0
    for p in range(begin, end):
        first, n_first, second, n_second = places[p, 0], places[p, 1], places[p, 2], places[p, 3]
        row, start = shapes[p, 1], shapes[p, 3] - base + offset
        for i in range(n_first):
            own = load(block, first + i)
            of_own = every(own, 0.0)
            for j in range(n_second):
                total = every(own, 0.0)
                for e in range(ends[row], ends[row + 1]):
                    total += spread(values, e) * load(of_found, start + entries[e])
                of_own += total * load(block, second + j)
                at = block_offset + second + j
                store(of_block, at, load(of_block, at) + total * own)
                row += 1
            at = block_offset + first + i
            store(of_block, at, load(of_block, at) + of_own)


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
                weight = load(weights, s * n_features + k)
                store(sums, s, load(sums, s) + weight * total)
                for t in range(term_ends[k], term_ends[k + 1]):
                    a, b = start + terms[t, 0], terms[t, 1]
                    to, other = s * n_own + a, s * n_seconds + b
                    for i in range(terms[t, 2]):
                        store(of_own, to + i, load(of_own, to + i) + weight * load(seconds, b + i))
                        store(of_seconds, other + i, load(of_seconds, other + i) + weight * load(own, a + i))


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
                load_weights(weights[s], row, start, places, of_lanes[s * len(places) : (s + 1) * len(places)])
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
            for s in range(n_weights):
                at, to = s * most[0], s * (width + 1)
                coefficients_pull_back(p, end, block, first_places, first_shapes, *back, of_own, at, of_block, to)
        for s in range(n_weights):
            at, to = s * n_seconds, s * (width + 1)
            coefficients_pull_back(
                0, n_second, block, second_places, second_shapes, *back_2, of_seconds, at, of_block, to
            )
            unload(of_block, start, s, of_moments[s])
            for lane in range(min(LANES, n_centers - start)):
                sums[s, start + lane] += whole[s, lane]
        for lane in range(min(LANES, len(features) - start)):
            for k in range(len(places)):
                features[start + lane, places[k]] = found[k, lane]
