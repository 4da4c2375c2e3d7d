"""From neighbours on the group SU(2) to bispectrum components, and back: batched matrix products with fixed tables.

Nothing here is recorded by autograd: ``components`` and ``gradient`` are the two ways by hand, with buffers that are
used again from block to block, because fresh memory and small operations cost more than the arithmetic.
Index letters: P centres, K neighbours, U numbers of all U_j, G x S = X points of a quadrature rule.
"""
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch

from ase_mlelec.descriptors import wigner


class Kernel:
    """The tables for one twojmax, dtype and device."""

    def __init__(self, twojmax, dtype, device):
        self.twojmax, self.dtype, self.device = twojmax, dtype, device

        def integers(array):
            return torch.as_tensor(np.array(array), device=device)

        def real(array):
            return torch.as_tensor(np.array(array), device=device).to(dtype)

        moments = wigner.moment_tables(twojmax)
        self.first, self.second, self.sign = integers(moments.first), integers(moments.second), real(moments.sign)
        self.back, self.back_second = integers(moments.back), integers(moments.back_second)
        self.back_sign = real(moments.back_sign)
        self.series = [[real(row) for row in rows] for rows in moments.series]
        self.starts = [0, *accumulate(rows.shape[1] for rows in moments.series)]      # of the parts of [U] and [V]
        self.identity, self.multiplicity = real(moments.identity), real(moments.multiplicity)
        self.of_order = real(moments.orders[:, None] == np.arange(twojmax + 1))
        self.n_rows = [2 * (twojmax - 2 * n) + 1 for n in range(twojmax // 2 + 1)]       # of a^p s^n, by n
        self.groups = [Group(tables, real) for tables in wigner.group_tables(twojmax, moments.columns)]
        self._index_planes(moments.columns, integers, real)
        self._index_components(integers, real)

    def _index_planes(self, columns, integers, real):
        """Which numbers of U the planes of each order are made of: [P, U] -> [P, all orders, j+1, 2 (j+1)].

        Backward each number comes from one place: cos and sin are summed by the matrix product.
        """
        names, place = [], np.zeros(len(columns), dtype=int)
        self.plane_starts, self.block_starts, n_blocks = {}, {}, 0
        for j in range(1, self.twojmax + 1):
            self.plane_starts[j], self.block_starts[j] = sum(map(len, names)), n_blocks
            for ma, part in wigner.plane_rows(j):
                found, signs = wigner.plane_columns(j, ma, columns)
                names.append(found)
                if part == 0:
                    place[found[signs != 0]] = n_blocks + np.nonzero(signs)[0]
                    n_blocks += len(found)
        self.planes, self.n_planes = integers(np.concatenate(names)), sum(map(len, names))
        self.unplane, self.n_blocks = integers(place), n_blocks
        has_planes = np.ones(len(columns))
        has_planes[columns[0, 0, 0, 0]] = 0
        self.has_planes = real(has_planes)

    def _index_components(self, integers, real):
        """Which of the triple products (those with an order 0 last) is which component, and its factor j + 1."""
        places, offset = {}, 0
        for group in self.groups:
            places |= {triple: offset + place for triple, place in group.places.items() if triple not in places}
            offset += group.n_pairs * group.n_thirds
        places |= {(0, j, j): offset + j for j in range(self.twojmax + 1)}
        self.n_products = offset + self.twojmax + 1
        triples = wigner.triples(self.twojmax)
        self.place = integers([places[tuple(sorted(map(int, triple)))] for triple in triples])
        self.scale = real([triple[2] + 1.0 if triple.min() else 1.0 for triple in triples])

    # forward ---------------------------------------------------------------------------------------------------------

    def components(self, sphere, buffers):
        """B [P, F] of neighbours (Re a, Im a, Re b, Im b, weight), each [P, K]."""
        u = self._u(*sphere, buffers)
        columns = self._columns(u, buffers)
        products = buffers("products", len(u), self.n_products)
        start = 0
        for group in self.groups:
            stop = start + group.n_pairs * group.n_thirds
            products[:, start:stop] = group.products(self._functions(group, columns, buffers), buffers).flatten(1)
            start = stop
        torch.mul(self._norms(u), u[:, :1], out=products[:, start:])
        return products.index_select(1, self.place) * self.scale

    def _u(self, a_re, a_im, b_re, b_im, weight, buffers):
        """[P, U]"""
        left, right = self._rows(a_re, a_im, b_re, b_im, weight, buffers)
        moments = buffers("moments", left.shape[1], len(left), len(right))
        torch.bmm(left.permute(1, 0, 2), right.permute(1, 2, 0), out=moments)
        v = buffers("v", len(moments), len(self.identity))
        second, u = torch.empty_like(v), buffers("u", *v.shape)
        torch.index_select(moments.flatten(1), 1, self.first, out=v)
        torch.index_select(moments.flatten(1), 1, self.second, out=second)
        v.addcmul_(second, self.sign)
        for k, rows in enumerate(self.series):
            width = rows[0].shape[0]
            part = u[:, self.starts[k]:self.starts[k] + width]
            torch.mul(v[:, :width], rows[0], out=part)
            for n in range(1, k + 1):
                part.addcmul_(v[:, self.starts[n]:self.starts[n] + width], rows[n])
        return u.add_(self.identity)

    def _rows(self, a_re, a_im, b_re, b_im, weight, buffers):
        """Re, Im of a^p s^n, by n, then p, [L, P, K]; those of w b^q, [R, P, K].  Keeps s and b^q."""
        n, shape = 2 * self.twojmax + 1, weight.shape
        left = buffers("left", sum(self.n_rows), *shape)
        _powers(a_re, a_im, left[:n])
        s = torch.mul(a_re, a_re, out=buffers("s", *shape)).addcmul_(a_im, a_im)
        s.addcmul_(b_re, b_re, value=-1).addcmul_(b_im, b_im, value=-1)
        start = 0
        for above, rows in zip(self.n_rows, self.n_rows[1:]):
            torch.mul(left[start:start + rows], s, out=left[start + above:start + above + rows])
            start += above
        powers = _powers(b_re, b_im, buffers("powers", n, *shape))
        return left, torch.mul(powers, weight, out=buffers("right", n, *shape))

    def _columns(self, u, buffers):
        out = buffers("columns", len(u), self.n_planes)
        return torch.index_select(u, 1, self.planes, out=out)

    def _functions(self, group, columns, buffers):
        """f_j at the points of the rule, [orders, P, X]."""
        n_centers = len(columns)
        out = buffers("functions", len(group.js), n_centers, *group.shape)
        for k, j in enumerate(group.js):
            start = self.plane_starts[j]
            block = columns[:, start:start + 2 * (j + 1)**2].view(n_centers, j + 1, 2 * (j + 1))
            planes = buffers("planes", j + 1, n_centers, group.shape[1])
            torch.bmm(block.transpose(0, 1), group.sphere[j], out=planes)
            torch.bmm(group.gamma[j].expand(n_centers, -1, -1), planes.transpose(0, 1), out=out[k])
        return out.flatten(2)

    def _norms(self, u):
        """sum |U_j|^2 [P, orders]"""
        return (u * u * self.multiplicity) @ self.of_order

    # backward --------------------------------------------------------------------------------------------------------

    def gradient(self, sphere, gradient, buffers):
        """Gradients of sum(gradient * B) with respect to the five of ``sphere``, from gradient [P, F]."""
        u = self._u(*sphere, buffers)
        columns = self._columns(u, buffers)
        products = buffers("products", len(u), self.n_products).zero_()
        products.index_copy_(1, self.place, gradient * self.scale)
        blocks = buffers("blocks", len(u), self.n_blocks).zero_()
        start = 0
        for group in self.groups:
            stop = start + group.n_pairs * group.n_thirds
            of_products = products[:, start:stop].reshape(-1, group.n_pairs, group.n_thirds)
            of_functions = group.gradient(self._functions(group, columns, buffers), of_products, buffers)
            self._planes_back(group, of_functions, blocks, buffers)
            start = stop
        of_u = blocks.index_select(1, self.unplane).mul_(self.has_planes)
        of_norms = products[:, start:]
        of_u.addcmul_(u, ((2 * u[:, :1] * of_norms) @ self.of_order.T) * self.multiplicity)
        of_u[:, :1] += (of_norms * self._norms(u)).sum(dim=1, keepdim=True)
        return self._rows_back(sphere, self._moments_back(of_u), buffers)

    def _planes_back(self, group, of_functions, blocks, buffers):
        """Add to ``blocks`` [P, blocks of all orders] what comes from d/df_j [orders, P, G, S]."""
        n_centers, (_, n_sphere) = len(blocks), group.shape
        for k, j in enumerate(group.js):
            planes = buffers("planes", n_centers, j + 1, n_sphere)
            torch.bmm(group.gamma[j].T.expand(n_centers, -1, -1), of_functions[k].view(n_centers, *group.shape),
                      out=planes)
            start, odd = self.block_starts[j], j % 2
            if not odd:         # m = 0 has no sin
                blocks[:, start:start + 2 * (j + 1)] += planes[:, 0] @ group.sphere[j][0].T
                start += 2 * (j + 1)
            pairs = planes[:, 1 - odd:].reshape(n_centers, -1, 2 * n_sphere).transpose(0, 1)
            found = torch.bmm(pairs, group.sphere_back[j])                            # [m, P, 2 (j+1)]
            blocks[:, start:start + found.shape[0] * found.shape[2]] += found.transpose(0, 1).flatten(1)

    def _moments_back(self, of_u):
        """d/dM [P, L, R] from d/dU [P, U]"""
        of_v = of_u.new_zeros(len(of_u), of_u.shape[1] + 1)         # the last one stays zero
        for k, rows in enumerate(self.series):
            width = rows[0].shape[0]
            part = of_u[:, self.starts[k]:self.starts[k] + width]
            for n in range(k + 1):
                of_v[:, self.starts[n]:self.starts[n] + width].addcmul_(part, rows[n])
        out = of_v.index_select(1, self.back)
        out.addcmul_(of_v.index_select(1, self.back_second), self.back_sign)
        return out.view(len(of_u), sum(self.n_rows), -1)

    def _rows_back(self, sphere, of_moments, buffers):
        """From d/dM to the gradients with respect to the five of ``sphere``."""
        a_re, a_im, b_re, b_im, weight = sphere
        n, shape = self.twojmax, weight.shape
        left, right = (buffers(name, rows, *shape) for name, rows in (("left", sum(self.n_rows)), ("right", 2 * n + 1)))
        s, powers = buffers("s", *shape), buffers("powers", 2 * n + 1, *shape)
        of_left = torch.bmm(of_moments, right.transpose(0, 1)).transpose(0, 1)
        of_right = torch.bmm(of_moments.transpose(1, 2), left.transpose(0, 1)).transpose(0, 1)
        # Horner's rule in s, for the value (d/d(a^p)) and the derivative
        of_powers, slope = (buffers(name, 2 * n + 1, *shape).zero_() for name in ("of_powers", "slope"))
        stop = len(of_left)
        for rows, higher in zip(reversed(self.n_rows), [0, *reversed(self.n_rows)]):
            slope[:higher].mul_(s).add_(of_powers[:higher])
            of_powers[:higher].mul_(s)
            of_powers[:rows].add_(of_left[stop - rows:stop])
            stop -= rows
        of_s = 2 * slope[:higher].mul_(left[:higher]).sum(dim=0)
        of_a = _powers_back(left[:2 * n + 1], of_powers)
        of_weight = (of_right * powers).sum(dim=0)
        of_b = _powers_back(powers, torch.mul(of_right, weight, out=right))
        return (of_a[0].addcmul_(of_s, a_re), of_a[1].addcmul_(of_s, a_im), of_b[0].addcmul_(of_s, b_re, value=-1),
                of_b[1].addcmul_(of_s, b_im, value=-1), of_weight)


class Group:
    """The tables of triple products that share a quadrature rule, and what is done with them."""

    def __init__(self, tables, real):
        self.js, self.runs, self.places = tables.js, tables.runs, tables.places
        self.n_pairs, self.n_thirds = tables.n_pairs, tables.n_thirds
        self.sphere, self.gamma = ({j: real(table) for j, table in stage.items()}
                                   for stage in (tables.sphere, tables.gamma))
        j = self.js[0]
        self.shape = (len(self.gamma[j]), self.sphere[j].shape[2])      # G, S
        self.sphere_back = {j: _join_parts(table[1 - j % 2:]) for j, table in self.sphere.items()}

    def products(self, functions, buffers):
        """int f_j1 f_j2 f_j, [P, pairs, thirds], from the functions [orders, P, X]."""
        out = buffers("triples", functions.shape[1], self.n_pairs, self.n_thirds)
        thirds = functions[:self.n_thirds].permute(1, 2, 0)
        return torch.bmm(self._pairs(functions, buffers).transpose(0, 1), thirds, out=out)

    def _pairs(self, functions, buffers):
        out, start = buffers("pairs", self.n_pairs, *functions.shape[1:]), 0
        for first, low, high in self.runs:
            torch.mul(functions[first], functions[low:high], out=out[start:start + high - low])
            start += high - low
        return out

    def gradient(self, functions, of_products, buffers):
        """Gradient with respect to the functions, from that with respect to ``products``."""
        n_orders, n_centers, n_points = functions.shape
        pairs, thirds = self._pairs(functions, buffers), functions[:self.n_thirds]
        of_thirds = torch.bmm(of_products.transpose(1, 2), pairs.transpose(0, 1),
                              out=buffers("of_thirds", n_centers, self.n_thirds, n_points))
        of_pairs = torch.bmm(of_products, thirds.transpose(0, 1),
                             out=buffers("of_pairs", n_centers, self.n_pairs, n_points)).transpose(0, 1)
        out, start = buffers("of_functions", n_orders, n_centers, n_points), 0
        out[:self.n_thirds].copy_(of_thirds.transpose(0, 1))
        out[self.n_thirds:].zero_()
        for first, low, high in self.runs:
            out[low:high].addcmul_(of_pairs[start:start + high - low], functions[first])
            for k in range(low, high):
                out[first].addcmul_(of_pairs[start + k - low], functions[k])
            start += high - low
        return out


def _join_parts(planes):
    """[2 m, C, S] with cos and sin in turn -> [m, 2 S, C]"""
    n_planes, n_columns, n_sphere = planes.shape
    return planes.reshape(n_planes // 2, 2, n_columns, n_sphere).transpose(2, 3).reshape(-1, 2 * n_sphere, n_columns)


def _powers(re, im, out):
    """Re, Im of z^k, k = 0..n, without the zero Im of k = 0, into [2 n + 1, ...]: doubled until n is reached."""
    out[0] = 1.0
    n = len(out) // 2
    x, y = out[1::2], out[2::2]
    x[0], y[0] = re, im
    have = 1
    while have < n:
        more = min(have, n - have)
        new = slice(have, have + more)
        torch.mul(x[:more], x[have - 1], out=x[new]).addcmul_(y[:more], y[have - 1], value=-1)
        torch.mul(x[:more], y[have - 1], out=y[new]).addcmul_(y[:more], x[have - 1])
        have += more
    return out


def _powers_back(powers, of_powers):
    """(d/d Re z, d/d Im z) from the gradient with respect to the rows of ``_powers``: sum_k k z^(k-1)* g_k."""
    n = len(powers) // 2
    factors = torch.arange(1, n + 1, dtype=powers.dtype, device=powers.device)[:, None, None]
    g_re, g_im = of_powers[1::2] * factors, of_powers[2::2] * factors
    x, y = powers[1:-2:2], powers[2:-2:2]
    return (g_re[0] + (g_re[1:] * x).addcmul_(g_im[1:], y).sum(dim=0),
            g_im[0] + (g_im[1:] * x).addcmul_(g_re[1:], y, value=-1).sum(dim=0))


class Buffers:
    """Arrays by name that are used again by the next block; what was in them is lost."""

    def __init__(self, dtype, device):
        self.options, self.arrays = dict(dtype=dtype, device=device), {}

    def __call__(self, name, *shape):
        size = int(np.prod(shape))
        if name not in self.arrays or len(self.arrays[name]) < size:
            self.arrays[name] = torch.empty(size, **self.options)
        return self.arrays[name][:size].view(shape)


@lru_cache(maxsize=8)
def kernel(twojmax, dtype, device):
    """The Kernel, made once."""
    return Kernel(twojmax, dtype, device)
