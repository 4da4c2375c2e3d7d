"""Tables of the compiled loops of the bispectrum: those of ``tables``, halved by symmetry, without what is not used.

Rotations of a rule by half a turn about x map the points of the sphere in pairs, (x, y, z) and (x, -y, -z); they turn the
row mb of u_j into the row j - mb. So sums and differences of these rows give the functions at two points at a time. The
angles gamma are half a step off zero and come in pairs as well, +-gamma, for which cos and sin parts are added or
subtracted.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.integrate import lebedev_rule

from ase_mlelec.descriptors.bispectrum import tables

TILE = 4  # points of the sphere whose functions are evaluated together
TERMS = 16  # of power series up to t = pi; as in the loops


class Rule(NamedTuple):
    """Triple products that share a quadrature rule.

    Attributes
    ----------
    blocks : int [B, 4]
        By j, then ma >= j/2: first sum, first difference and the end of both in ``state``; their first column in
        ``table``, less the first place in ``state``.
    table : [tiles, sums and differences of the orders, 4]
        From them to the planes cos and sin of the first points of two pairs; cube roots of the weights are multiplied in.
    signs : [B]
        Sign of the second point of a pair.
    orders : int [n + 1]
        First block of every order.
    gamma : [B, angles, 2]
        cos and -sin of m gamma, m = ma - j/2.
    quads : int [T, 7]
        Two orders that are multiplied, four with which their product is multiplied, row of the first result in the list
        of all.
    twos : int [T, 5]
        The same with two orders in place of four.
    """

    blocks: NDArray
    table: NDArray
    signs: NDArray
    orders: NDArray
    gamma: NDArray
    quads: NDArray
    twos: NDArray


class Neighbors(NamedTuple):
    """From neighbors to the state: U, the real numbers of all U_j, then sums and differences of rows.

    Attributes
    ----------
    rows : int [L, 2]
        By n, p, Re and Im of a^p s^n: first moment, and number of moments.
    highest : int [2 J + 1]
        By p, Re and Im of a^p: largest n.
    starts : int [J + 1]
        Row of a^0 s^n.
    series : [4, TERMS]
        Power series in t^2 of cos t, sin(t)/t and (cos t - sin(t)/t)/t^2; and the numbers 0, 1, 2, ...
    identity : [U]
    to_u, to_sums, from_u, from_sums
        Matrices from moments to U and from U to sums and differences, and the transposed ones; see ``_sparse``.
    """

    rows: NDArray
    highest: NDArray
    starts: NDArray
    series: NDArray
    identity: NDArray
    to_u: tuple[NDArray, ...]
    to_sums: tuple[NDArray, ...]
    from_u: tuple[NDArray, ...]
    from_sums: tuple[NDArray, ...]


class Components(NamedTuple):
    """From the state and the products to the components.

    Attributes
    ----------
    orders : int [U]
    multiplicity : [U]
        Norms by order j are sums of squares of these numbers times this.
    places : int [F]
        Product that a component is.
    scale : [F]
    norms : int
        The first product of U_0 and a norm.
    """

    orders: NDArray
    multiplicity: NDArray
    places: NDArray
    scale: NDArray
    norms: int


class Layout(NamedTuple):
    """All tables for one twojmax and precision."""

    neighbors: Neighbors
    rules: tuple[Rule, ...]
    components: Components

    @property
    def n_products(self) -> int:
        return self.components.norms + int(self.components.orders.max()) + 1

    @property
    def n_state(self) -> int:
        return len(self.neighbors.identity) + len(self.neighbors.to_sums[0]) - 1


@lru_cache(maxsize=8)
def layout(twojmax: int, dtype: DTypeLike) -> Layout:
    """The Layout, made once."""
    moments = tables.moment_tables(twojmax)
    neighbors, blocks = _neighbors(twojmax, moments, dtype)
    rules: list[Rule] = []
    product_of: dict[tuple[int, ...], int] = {}
    start = 0
    wanted = {tuple(sorted(map(int, triple))) for triple in tables.triples(twojmax)}
    for group in tables.group_tables(twojmax, moments.columns):
        quads, twos, places, stop = _products(group, wanted - product_of.keys(), start)
        rules.append(_rule(group, blocks, len(moments.identity), dtype)._replace(quads=quads, twos=twos))
        product_of |= places
        start = stop
    product_of |= {(0, j, j): start + j for j in range(twojmax + 1)}
    triples = tables.triples(twojmax)
    components = Components(
        orders=moments.orders,
        multiplicity=moments.multiplicity.astype(dtype),
        places=np.array([product_of[tuple(sorted(map(int, triple)))] for triple in triples]),
        scale=np.array([triple[2] + 1.0 if triple.min() else 1.0 for triple in triples], dtype),
        norms=start,
    )
    return Layout(neighbors, tuple(rules), components)


def _neighbors(twojmax, moments, dtype):
    """(Neighbors, blocks as ``_sums`` has them)."""
    rows, places = _moment_rows(twojmax, moments.n_columns)
    to_u = _to_u(moments, places, len(moments.identity))
    sums, blocks = _sums(twojmax, moments.columns)
    to_sums = np.zeros((len(sums), len(to_u)))
    for k, entries in enumerate(sums):
        for place, factor in entries:
            to_sums[k, place] += factor
    lengths = [2 * (twojmax - 2 * n) + 1 for n in range(twojmax // 2 + 1)]
    found = Neighbors(
        rows=rows,
        highest=(twojmax - (np.arange(2 * twojmax + 1) + 1) // 2) // 2,
        starts=np.cumsum([0, *lengths])[:-1],
        series=_series().astype(dtype),
        identity=moments.identity.astype(dtype),
        to_u=_sparse(to_u, dtype),
        to_sums=_sparse(to_sums, dtype),
        from_u=_sparse(to_u.T, dtype),
        from_sums=_sparse(to_sums.T, dtype),
    )
    return found, blocks


def _series():
    """Coefficients; the third is exact for r -> 0, where the difference of the first two cancels."""
    factorials = np.cumprod([1.0, *range(1, 2 * TERMS + 2)])
    n = np.arange(TERMS)
    sign = (-1.0) ** n
    third = sign / factorials[2 * n + 3] - sign / factorials[2 * n + 2]
    return np.array([sign / factorials[2 * n], sign / factorials[2 * n + 1], third, n + 0.0])


def _moment_rows(twojmax, n_columns):
    """(rows of Layout, {moment of MomentTables: moment})."""
    rows, places, start = [], {}, 0
    for n in range(twojmax // 2 + 1):
        degree = twojmax - 2 * n
        for k in range(2 * degree + 1):
            count = 2 * (degree - (k + 1) // 2) + 1
            places |= {len(rows) * n_columns + column: start + column for column in range(count)}
            rows.append((start, count))
            start += count
    return np.array(rows), places


def _to_u(moments, places, size):
    """Matrix [U, moments]."""
    to_v, out = np.zeros((size, len(places))), []
    for k in range(size):
        to_v[k, places[moments.first[k]]] += 1
        if moments.sign[k]:
            to_v[k, places[moments.second[k]]] += moments.sign[k]
    starts = np.cumsum([0, *(part.shape[1] for part in moments.series)])
    for part in moments.series:
        own = np.arange(part.shape[1])
        out.append(sum(row[:, None] * to_v[starts[n] + own] for n, row in enumerate(part)))
    return np.concatenate(out)


def _sparse(matrix, dtype):
    """(ends, columns, factors): entries ends[i] .. ends[i + 1] are of row i."""
    row, column = np.nonzero(np.abs(matrix) > 1e-14)
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(matrix)))])
    return ends, column, matrix[row, column].astype(dtype)


def _sums(twojmax, columns):
    """Sums and differences of the rows mb and j - mb of U_j, as [(number of U, factor)], and {j: [blocks]}.

    A block, of one ma, is (first sum, first difference, end, [(mb, part) of sums], [(mb, part) of differences]).
    """
    sums, blocks = [], {}
    for j in range(1, twojmax + 1):
        blocks[j] = []
        for ma in range((j + 1) // 2, j + 1):
            start, kinds = len(sums), ([], [])
            middle = len(sums)
            for sign in (1, -1):
                middle = len(sums) if sign < 0 else middle
                for mb in range(j // 2 + 1):
                    for part in (0, 1):
                        entries = dict(_number(j, mb, ma, part, columns, 1))
                        for place, factor in _number(j, j - mb, ma, part, columns, sign) if 2 * mb < j else ():
                            entries[place] = entries.get(place, 0) + factor
                        if any(entries.values()) and (sign > 0 or 2 * mb < j):
                            sums.append([entry for entry in entries.items() if entry[1]])
                            kinds[sign < 0].append((mb, part))
            blocks[j].append((start, middle, len(sums), *kinds))
    return sums, blocks


def _number(j, mb, ma, part, columns, factor):
    """Re or Im of U_j[mb, ma] times a factor as [(number of U, factor)], empty for zero."""
    mirrored = (j, mb, ma, 0) not in columns
    key = (j, j - mb, j - ma, part) if mirrored else (j, mb, ma, part)
    sign = (-1) ** (mb + ma + part) if mirrored else 1
    return [(columns[key], factor * sign)] if key in columns else []


def _products(group, wanted, start):
    """(quads, twos, {triple: row}, end of the rows) for the ``wanted`` triples that a GroupTables makes."""
    pairs = [(first, second) for first, low, high in group.runs for second in range(low, high)]
    made: dict[int, list] = {4: [], 2: []}
    for k, pair in enumerate(pairs):
        names = [tuple(sorted((*(group.js[i] for i in pair), third))) for third in group.js[: group.n_thirds]]
        thirds = [m for m, name in enumerate(names) if name in wanted and group.places[name] == k * group.n_thirds + m]
        while thirds:
            size = 4 if len(thirds) > 2 else 2
            now, thirds = thirds[:size], thirds[size:]
            made[size].append(([*pair, *now, *now[-1:] * (size - len(now))], [names[m] for m in now]))
    rows, found = {}, []
    for size, entries in made.items():
        starts = start + size * np.arange(len(entries))
        rows |= {name: int(row) + m for row, (_, names) in zip(starts, entries) for m, name in enumerate(names)}
        found.append(np.column_stack([np.array([own for own, _ in entries], int).reshape(-1, size + 2), starts]))
        start += size * len(entries)
    return *found, rows, start


def _rule(group, blocks, offset, dtype):
    """The Rule of a GroupTables, without its products; ``offset`` is the place of the first sum in the state."""
    n_gamma = -(-group.gamma[group.js[0]].shape[0] // 4) * 4
    points, roots = _paired_points(group.sphere[group.js[0]].shape[2], n_gamma)
    angle = (2 * np.arange(n_gamma // 2) + 1) * np.pi / n_gamma
    found, table, signs, gamma, ends = [], [], [], [], [0]
    for j in group.js:
        u = tables.on_sphere(j, points)
        for ma, (first, middle, end, of_sums, of_differences) in enumerate(blocks[j], (j + 1) // 2):
            here = np.array([first, middle, end]) + offset
            found.append((*here, sum(map(len, table)) - here[0]))
            rows = [_planes(u, j, ma, *kind, 1) for kind in of_sums]
            rows += [_planes(u, j, ma, *kind, -1) for kind in of_differences]
            table.append(np.array(rows) * roots)
            signs.append((-1.0) ** ma)
            gamma.append(np.stack([np.cos((ma - j / 2) * angle), -np.sin((ma - j / 2) * angle)], axis=1))
        ends.append(len(found))
    whole = np.concatenate(table)  # [sums and differences, 2, pairs of points]
    return Rule(
        blocks=np.array(found),
        table=np.ascontiguousarray(
            whole.reshape(len(whole), 2, -1, TILE // 2).transpose(2, 0, 3, 1).reshape(-1, len(whole), TILE)
        ).astype(dtype),
        signs=np.array(signs, dtype),
        orders=np.array(ends),
        gamma=np.array(gamma, dtype),
        quads=np.zeros((0, 7), int),
        twos=np.zeros((0, 5), int),
    )


def _planes(u, j, ma, mb, part, sign):
    """cos and sin parts [2, points] of f_j that a sum or difference of the rows mb and j - mb of U_j gives."""

    def own(row):
        values = u[row, ma]
        return np.stack([values.imag, -values.real] if part else [values.real, values.imag])

    twice = 1.0 if 2 * ma == j else 2.0
    return twice * (own(mb) if 2 * mb == j else (own(mb) + sign * own(j - mb)) / 2)


def _paired_points(n_points, n_gamma):
    """One point of each pair, [3, pairs], and cube roots of the weights; an even number of pairs, the last may weigh 0."""
    points, weights = next(
        rule for degree in tables.LEBEDEV_DEGREES if (rule := lebedev_rule(degree))[1].shape == (n_points,)
    )
    partner = (
        np.abs(points[:, :, None] * np.array([1, -1, -1])[:, None, None] - points[:, None, :]).sum(axis=0).argmin(0)
    )
    chosen = np.flatnonzero(np.arange(n_points) <= partner)
    weights = np.where(partner == np.arange(n_points), 0.5, 1.0) * weights
    roots = np.cbrt(weights / (4 * np.pi * n_gamma))[chosen]
    if len(chosen) % 2:
        chosen, roots = np.append(chosen, chosen[-1]), np.append(roots, 0.0)
    return points[:, chosen], roots
