"""The evaluation of the kernel in batched products, piece by piece in the processor's cache."""

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.descriptors.bispectrum.kernel import Kernel, kernel

PART = 16  # centers whose functions are evaluated together: they should stay in the processor's cache


class Program:
    """Operations on fixed arrays for blocks of P centers with K neighbors each: the way forward or the gradient.

    Fill ``sphere`` and ``weight``, for the gradient also ``of_components``; call ``run()``; read the other arrays.

    Attributes
    ----------
    sphere : [2, 2, P, K]
        Re and Im of (a, b).
    weight : [P, K]
    components : [P, F]
    of_components : [P, F]
        Gradient with respect to the components.
    of_sphere, of_weight
        Gradient with respect to ``sphere`` and ``weight``.
    """

    def __init__(self, tables: Kernel, n_centers: int, n_neighbors: int, gradient: bool):
        self.tables, self.shape = tables, (n_centers, n_neighbors)
        self.options = dict(dtype=tables.identity.dtype, device=tables.identity.device)
        part = n_centers if self.options["device"].type == "cuda" else PART
        self.parts = [slice(start, min(start + part, n_centers)) for start in range(0, n_centers, part)]
        self.arrays: dict = {}
        self.steps: list = []
        self._powers()
        self._sums()
        self._norms()
        if gradient:
            self._back_to_u()
            self._back_to_moments()
            self._back_to_sphere()
        else:
            self._components()

    def run(self) -> None:
        for step in self.steps:
            step()

    def array(self, name: str, *shape: int) -> Tensor:
        """An array that is used again by everything of the same name."""
        size = int(np.prod(shape))
        if name not in self.arrays or len(self.arrays[name]) < size:
            self.arrays[name] = torch.empty(size, **self.options)
        return self.arrays[name][:size].view(shape)

    def do(self, function: Callable, *arguments: Any, **options: Any) -> None:
        self.steps.append(partial(function, *arguments, **options))

    def _pick(self, source, places, out):
        """Columns of a matrix; in double precision gather is three times faster than index_select, in single slower."""
        if source.dtype == torch.float64:
            self.do(torch.gather, source, 1, places.expand(len(source), -1), out=out)
        else:
            self.do(torch.index_select, source, 1, places, out=out)

    # forward ---------------------------------------------------------------------------------------------------------

    def _powers(self):
        """Rows Re, Im of a^p s^n, by n, then p; next to the first rows also b^q, and w b^q."""
        n, rows = self.tables.twojmax, self.tables.n_rows
        both = self.array("powers", sum(rows), 2, *self.shape)
        both[0] = 1.0
        self.left, self.right = both[:, 0], self.array("right", self.tables.n_columns, *self.shape).zero_()
        self.sphere, self.weight = both[1:3], self.array("weight", *self.shape)
        self.x, self.y = both[1 : 2 * n + 1 : 2], both[2 : 2 * n + 1 : 2]  # Re and Im of the powers 1..n of a and b
        have = 1
        while have < n:
            more = min(have, n - have)
            new, x, y = slice(have, have + more), self.x[:more], self.y[:more]
            self.do(torch.mul, x, self.x[have - 1], out=self.x[new])
            self.do(self.x[new].addcmul_, y, self.y[have - 1], value=-1)
            self.do(torch.mul, x, self.y[have - 1], out=self.y[new])
            self.do(self.y[new].addcmul_, y, self.x[have - 1])
            have += more
        self.right_powers = both[: 2 * n + 1, 1]
        self.do(torch.mul, self.right_powers, self.weight, out=self.right[: 2 * n + 1])
        squares, self.s = self.array("squares", 2, 2, *self.shape), self.array("s", *self.shape)
        self.do(torch.mul, self.sphere, self.sphere, out=squares)
        self.do(squares[0].add_, squares[1])
        self.do(torch.sub, squares[0, 0], squares[0, 1], out=self.s)
        start = 0
        for here, further in pairwise(rows):
            self.do(
                torch.mul,
                self.left[start : start + further],
                self.s,
                out=self.left[start + here : start + here + further],
            )
            start += here

    def _sums(self):
        """The moments, V and U."""
        tables, n_centers = self.tables, self.shape[0]
        self.moments = self.array("moments", n_centers, len(self.left), len(self.right))
        self.do(torch.bmm, self.left.permute(1, 0, 2), self.right.permute(1, 2, 0), out=self.moments)
        v, second, self.u = (self.array(name, n_centers, len(tables.identity)) for name in ("v", "second", "u"))
        self._pick(self.moments.flatten(1), tables.first, v)
        self._pick(self.moments.flatten(1), tables.second, second)
        self.do(v.addcmul_, second, tables.sign)
        for k, rows in enumerate(tables.series):
            part = self._part(self.u, k, k)
            self.do(torch.mul, self._part(v, 0, k), rows[0], out=part)
            for n in range(1, k + 1):
                self.do(part.addcmul_, self._part(v, n, k), rows[n])
        self.do(self.u.add_, tables.identity)

    def _part(self, array, n, k):
        """The columns of V_n, or of the part n of U, for elements that the part k of U has."""
        start = self.tables.starts[n]
        return array[:, start : start + self.tables.series[k].shape[1]]

    def _norms(self):
        """sum ``|U_j|^2``, [P, orders]"""
        squares = self.array("squares_of_u", *self.u.shape)
        self.norms = self.array("norms", len(self.u), self.tables.norm.shape[1])
        self.do(torch.mul, self.u, self.u, out=squares)
        self.do(torch.mm, squares, self.tables.norm, out=self.norms)

    def _components(self):
        """Products of three functions; those with one of order 0 are U_0 times a norm."""
        tables, n_centers = self.tables, self.shape[0]
        products, start = self.array("products", n_centers, tables.n_products), 0
        for group, planes in self._planes():
            triples = self.array("triples", n_centers, group.n_pairs, group.n_thirds)
            for part in self.parts:
                f = self._functions(group, planes, part)
                self.do(
                    torch.bmm,
                    self._pairs(group, f).transpose(0, 1),
                    f[: group.n_thirds].permute(1, 2, 0),
                    out=triples[part],
                )
            self.do(products[:, start : start + group.n_products].copy_, triples.flatten(1))
            start += group.n_products
        self.do(torch.mul, self.norms, self.u[:, :1], out=products[:, start:])
        self.components = self.array("components", n_centers, len(tables.place))
        self._pick(products, tables.place, self.components)
        self.do(self.components.mul_, tables.scale)

    def _planes(self):
        """Iterator of (group, {j: Fourier coefficients in gamma of f_j at the points of the sphere, [j+1, P, S]})."""
        tables, n_centers = self.tables, self.shape[0]
        columns = self.array("columns", n_centers, tables.n_planes)
        self._pick(self.u, tables.planes, columns)
        for group in tables.groups:
            out = {}
            for j in group.js:
                start = tables.plane_starts[j]
                block = columns[:, start : start + 2 * (j + 1) ** 2].unflatten(1, (j + 1, -1)).transpose(0, 1)
                out[j] = self.array(f"planes {j}", j + 1, n_centers, group.n_sphere)
                self.do(torch.bmm, block, group.sphere[j], out=out[j])
            yield group, out

    def _functions(self, group, planes, part):
        """f_j of a part of the centers at the points of the rule, [orders, P, X]."""
        n_centers = part.stop - part.start
        f = self.array("functions", len(group.js), n_centers, group.n_gamma, group.n_sphere)
        for k, j in enumerate(group.js):
            self.do(torch.bmm, group.gamma[j].expand(n_centers, -1, -1), planes[j][:, part].transpose(0, 1), out=f[k])
        return f.flatten(2)

    def _pairs(self, group, f):
        """Products of two functions, [pairs, P, X]."""
        out, start = self.array("pairs", group.n_pairs, *f.shape[1:]), 0
        for first, low, high in group.runs:
            self.do(torch.mul, f[first], f[low:high], out=out[start : start + high - low])
            start += high - low
        return out

    # backward --------------------------------------------------------------------------------------------------------

    def _back_to_u(self):
        tables, n_centers = self.tables, self.shape[0]
        self.of_components = self.array("of_components", n_centers, len(tables.place))
        of_products, start = self.array("of_products", n_centers, tables.n_products), 0
        blocks = self.array("blocks", n_centers, tables.n_blocks)
        self.do(self.of_components.mul_, tables.scale)
        self.do(of_products.zero_)
        self.do(of_products.index_copy_, 1, tables.place, self.of_components)
        self.do(blocks.zero_)
        for group, planes in self._planes():
            of_group = of_products[:, start : start + group.n_products].unflatten(1, (group.n_pairs, group.n_thirds))
            of_planes = {j: self.array(f"of_planes {j}", n_centers, j + 1, group.n_sphere) for j in group.js}
            for part in self.parts:
                self._back_to_planes(group, of_group[part], self._functions(group, planes, part), of_planes, part)
            self._back_to_blocks(group, of_planes, blocks)
            start += group.n_products
        self.of_u = self.array("of_u", *self.u.shape)
        self._pick(blocks, tables.unplane, self.of_u)
        self.do(self.of_u[:, 0].zero_)  # U_0 has no planes
        self._back_from_norms(of_products[:, start:])

    def _back_from_norms(self, of_products):
        dot, twice = (self.array(name, *self.norms.shape) for name in ("dot", "twice"))
        along, sums = self.array("along", *self.u.shape), self.array("sums", len(self.u))
        self.do(torch.mul, of_products, self.norms, out=dot)
        self.do(torch.mul, of_products, self.u[:, :1], out=twice)
        self.do(torch.mm, twice, self.tables.norm.T, out=along)
        self.do(self.of_u.addcmul_, along, self.u, value=2)
        self.do(torch.sum, dot, 1, out=sums)
        self.do(self.of_u[:, 0].add_, sums)

    def _back_to_planes(self, group, of_products, f, of_planes, part):
        """From the products of a part of the centers to its planes."""
        n_orders, n_centers, n_points = f.shape
        of_thirds = self.array("of_thirds", n_centers, group.n_thirds, n_points)
        of_pairs = self.array("of_pairs", n_centers, group.n_pairs, n_points)
        self.do(torch.bmm, of_products.transpose(1, 2), self._pairs(group, f).transpose(0, 1), out=of_thirds)
        self.do(torch.bmm, of_products, f[: group.n_thirds].transpose(0, 1), out=of_pairs)
        of_pairs = of_pairs.transpose(0, 1)
        of_f, start = self.array("of_functions", n_orders, n_centers, n_points), 0
        self.do(of_f[: group.n_thirds].copy_, of_thirds.transpose(0, 1))
        self.do(of_f[group.n_thirds :].zero_)
        for first, low, high in group.runs:
            self.do(of_f[low:high].addcmul_, of_pairs[start : start + high - low], f[first])
            for k in range(low, high):
                self.do(of_f[first].addcmul_, of_pairs[start + k - low], f[k])
            start += high - low
        for k, j in enumerate(group.js):
            self.do(
                torch.bmm,
                group.gamma[j].T.expand(n_centers, -1, -1),
                of_f[k].unflatten(1, (-1, group.n_sphere)),
                out=of_planes[j][part],
            )

    def _back_to_blocks(self, group, of_planes, blocks):
        """Add to ``blocks`` what comes from the planes of a group."""
        for j, planes in of_planes.items():
            odd, start = j % 2, self.tables.block_starts[j]
            if not odd:  # m = 0 has no sin
                self.do(blocks[:, start : start + 2 * (j + 1)].addmm_, planes[:, 0], group.sphere[j][0].T)
                start += 2 * (j + 1)
            n_blocks = (j + odd) // 2
            parts = planes[:, 1 - odd :].unflatten(1, (n_blocks, 2)).flatten(2).transpose(0, 1)  # [m, P, 2 S]
            found = self.array("found", n_blocks, len(blocks), 2 * (j + 1))
            self.do(torch.bmm, parts, group.sphere_back[j], out=found)
            here = blocks[:, start : start + n_blocks * 2 * (j + 1)].unflatten(1, (n_blocks, -1))
            self.do(here.add_, found.transpose(0, 1))

    def _back_to_moments(self):
        tables, n_centers = self.tables, self.shape[0]
        of_v = self.array("of_v", n_centers, len(tables.identity) + 1)  # the last one stays zero
        self.do(of_v.zero_)
        for k, rows in enumerate(tables.series):
            for n in range(k + 1):
                self.do(self._part(of_v, n, k).addcmul_, self._part(self.of_u, k, k), rows[n])
        self.of_moments, second = (self.array(name, *self.moments.shape) for name in ("of_moments", "of_second"))
        self._pick(of_v, tables.back, self.of_moments.flatten(1))
        self._pick(of_v, tables.back_second, second.flatten(1))
        self.do(self.of_moments.flatten(1).addcmul_, second.flatten(1), tables.back_sign)

    def _back_to_sphere(self):
        n, rows = self.tables.twojmax, self.tables.n_rows
        n_centers, n_neighbors = self.shape
        right, of_moments = self.right[: 2 * n + 1], self.of_moments[:, :, : 2 * n + 1]  # without the padding
        of_left = self.array("of_left", n_centers, len(self.left), n_neighbors)
        of_right = self.array("of_right", n_centers, len(right), n_neighbors)
        self.do(torch.bmm, of_moments, right.transpose(0, 1), out=of_left)
        self.do(torch.bmm, of_moments.transpose(1, 2), self.left.transpose(0, 1), out=of_right)
        of_left, of_right = of_left.transpose(0, 1), of_right.transpose(0, 1)
        of_powers = self.array("of_powers", 2 * n + 1, 2, *self.shape)
        slope, temporary = (self.array(name, 2 * n + 1, *self.shape) for name in ("slope", "temporary"))
        # powers of b, and the weight
        self.of_weight, of_s = self.array("of_weight", *self.shape), self.array("of_s", *self.shape)
        self.do(torch.mul, of_right, self.right_powers, out=temporary)
        self.do(torch.sum, temporary, 0, out=self.of_weight)
        self.do(torch.mul, of_right, self.weight, out=of_powers[:, 1])
        # powers of a, and s: Horner's rule in s for the value and the derivative
        of_a, stop, higher = of_powers[:, 0], len(of_left), 0
        self.do(of_a.zero_)
        self.do(slope.zero_)
        for here in reversed(rows):
            self.do(slope[:higher].mul_, self.s)
            self.do(slope[:higher].add_, of_a[:higher])
            self.do(of_a[:higher].mul_, self.s)
            self.do(of_a[:here].add_, of_left[stop - here : stop])
            stop, last, higher = stop - here, higher, here
        self.do(torch.mul, slope[:last], self.left[:last], out=temporary[:last])
        self.do(torch.sum, temporary[:last], 0, out=of_s)
        # sum_k k z^(k-1)* g_k
        self.of_sphere = self.array("of_sphere", 2, 2, *self.shape)
        g_re, g_im = of_powers[1::2], of_powers[2::2]
        total = self.array("total", n, 2, *self.shape)
        self.do(g_re.mul_, self.tables.powers)
        self.do(g_im.mul_, self.tables.powers)
        for part, first, second, sign in (0, g_re, g_im, 1), (1, g_im, g_re, -1):
            self.do(torch.mul, first[1:], self.x[:-1], out=total[1:])
            self.do(total[1:].addcmul_, second[1:], self.y[:-1], value=sign)
            self.do(total[0].copy_, first[0])
            self.do(torch.sum, total, 0, out=self.of_sphere[part])
        self.do(self.of_sphere[:, 0].addcmul_, self.sphere[:, 0], of_s, value=2)
        self.do(self.of_sphere[:, 1].addcmul_, self.sphere[:, 1], of_s, value=-2)


@lru_cache(maxsize=4)
def program(
    thread: int,
    twojmax: int,
    dtype: torch.dtype,
    device: str | torch.device,
    n_centers: int,
    n_neighbors: int,
    gradient: bool,
) -> Program:
    """The Program of one thread, with its arrays, as the last call left it."""
    return Program(kernel(twojmax, dtype, device), n_centers, n_neighbors, gradient)
