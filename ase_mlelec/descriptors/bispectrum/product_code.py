"""Derivatives of triple products at one point as code without loops, which is made for the products of a rule.

The functions of all orders and their derivatives stay in registers. As a loop over products, most of the time goes into
loading and storing them. numba does not see when this file changes: then change ``group_loops`` as well.
"""

import hashlib
from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from ase_mlelec.descriptors.bispectrum.layout import Rule, layout
from ase_mlelec.lanes import FREEDOM, Vector, _pointer


class ProductsType(types.Type):
    """The products of a rule: a function that gets them is compiled for them.

    Attributes
    ----------
    pairs : dict
        {(order, order): {order with which their product is multiplied: row of the result}}; orders by their places.
    n_orders : int
    """

    def __init__(self, pairs: dict, n_orders: int):
        self.pairs, self.n_orders = pairs, n_orders
        super().__init__(name=f"Products({hashlib.sha256(repr((pairs, n_orders)).encode()).hexdigest()})")


class Products:
    """The products of a Rule as an argument of compiled functions."""

    def __init__(self, rule: Rule):
        pairs: dict = {}
        for *entry, row in (*rule.quads.tolist(), *rule.twos.tolist()):
            for k, third in enumerate(entry[2:]):
                pairs.setdefault(tuple(entry[:2]), {}).setdefault(third, row + k)  # the last one may be repeated
        self.type = ProductsType(pairs, len(rule.orders) - 1)


@lru_cache(maxsize=8)
def codes(twojmax: int, dtype: np.dtype) -> list[Products]:
    """Products of all rules of a Layout."""
    return [Products(rule) for rule in layout(twojmax, dtype).rules]


@typeof_impl.register(Products)
def _type_of(value, _):
    return value.type


register_model(ProductsType)(models.OpaqueModel)


@unbox(ProductsType)
def _unbox(kind, value, c):
    return NativeValue(c.context.get_dummy_value())


@intrinsic
def pull_back_at_points(typing, products, f, of_products, of_f, x, apart):
    """Sums and differences of the derivatives by the functions at the points x and x + 1.

    They fill the rows x and x + 1, x + apart and x + apart + 1, .. of ``of_f``, by order, as those of ``f``.
    """
    vector = Vector(f.dtype)

    def make(context, builder, signature, arguments):
        _, functions, results, found, point, step = arguments
        align = vector.dtype.bitwidth // 8

        def pointer(kind, array, row):
            place = _pointer(context, builder, kind, array, row, vector.size)
            return builder.bitcast(place, context.get_value_type(vector).as_pointer())

        def read(kind, array, row):
            return builder.load(pointer(kind, array, row), align=align)

        def result(row):
            return read(of_products, results, ir.Constant(step.type, row))

        starts = [builder.mul(step, ir.Constant(step.type, i)) for i in range(products.n_orders)]
        points = point, builder.add(point, ir.Constant(step.type, 1))
        rows = [[builder.add(start, x) for start in starts] for x in points]
        first, second = (
            _derivatives(builder, products, [read(f, functions, row) for row in own], result) for own in rows
        )
        for plus, minus, one, other in zip(*rows, first, second):
            builder.store(builder.fadd(one, other, flags=FREEDOM), pointer(of_f, found, plus), align=align)
            builder.store(builder.fsub(one, other, flags=FREEDOM), pointer(of_f, found, minus), align=align)
        return context.get_dummy_value()

    return types.none(products, f, of_products, of_f, types.intp, types.intp), make


def _derivatives(builder, products, values, result):
    """Derivatives by the functions at a point, by order; ``result(row)`` is the derivative by a product."""

    def times(a, b, more=None):
        product = builder.fmul(a, b, flags=FREEDOM)
        return product if more is None else builder.fadd(product, more, flags=FREEDOM)

    sums: list = [None] * products.n_orders
    for (i, j), thirds in products.pairs.items():
        pair, of_pair = times(values[i], values[j]), None
        for k, row in thirds.items():
            own = result(row)
            sums[k] = times(own, pair, sums[k])
            of_pair = times(own, values[k], of_pair)
        sums[i] = times(of_pair, values[j], sums[i])
        sums[j] = times(of_pair, values[i], sums[j])
    return [ir.Constant(values[0].type, None) if total is None else total for total in sums]
