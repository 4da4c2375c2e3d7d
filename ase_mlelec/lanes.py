"""Vectors of the processor in compiled loops: the same operation on the rows of several arrays, with sums in registers.

A loop over the last axis of arrays becomes vector instructions only where the compiler can tell that no two of its many
rows overlap, and it keeps few sums in registers. Functions here say what is a vector: ``load(array, row)`` is the row of
an array [.., lanes], which must be contiguous and whose last axis has ``lanes(dtype)`` numbers; ``spread(array, place)``
has one number of the flattened array in all lanes; ``store(array, row, vector)`` writes a row; ``every(vector, number)``
has a number in all lanes of a vector of the same type, and ``total(vector)`` is the sum of the lanes. Vectors can be added,
subtracted, multiplied and divided. Places are not checked.

Only modules that are imported where ``compiled.is_wanted()`` may import this one. numba does not see when this file changes:
then change those that use it as well.
"""

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numpy.typing import DTypeLike, NDArray

from ase_mlelec.compiled import compiled

BYTES = 64 if llvm.get_host_cpu_features().get("avx512f") else 32  # of a vector: one register, or two
NUMBERS = BYTES // 8  # float64 in a vector
FREEDOM = ("reassoc", "contract", "nsz")  # as ``compiled.ALLOWED``


def lanes(dtype: DTypeLike) -> int:
    """Numbers in a vector."""
    return BYTES // np.dtype(dtype).itemsize


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """Array of zeros that begins where vectors are loaded and stored fastest."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + BYTES, np.uint8)
    start = -raw.ctypes.data % BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


@compiled
def empty_rows(n, length):
    """Array [n, length] of float64 that begins where vectors are loaded and stored fastest; for compiled loops."""
    raw = np.empty(n * length + NUMBERS)
    start = -(raw.ctypes.data // 8) % NUMBERS
    return raw[start : start + n * length].reshape((n, length))


class Vector(types.Type):
    """Type of a vector of numbers."""

    def __init__(self, dtype: Any):
        self.dtype, self.size = dtype, BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {self.size})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, of):
        number = ir.DoubleType() if of.dtype == types.float64 else ir.FloatType()
        super().__init__(manager, of, ir.VectorType(number, of.size))


def _pointer(context, builder, array_type, array, place, scale):
    """Pointer to number ``place`` times ``scale`` of a flattened array."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [builder.mul(place, ir.Constant(place.type, scale))])


@intrinsic
def load(typing, array, row):
    """A row of an array as a vector."""
    vector = Vector(array.dtype)

    def make(context, builder, signature, arguments):
        pointer = _pointer(context, builder, array, *arguments, vector.size)
        wide = builder.bitcast(pointer, context.get_value_type(vector).as_pointer())
        return builder.load(wide, align=vector.dtype.bitwidth // 8)

    return vector(array, types.intp), make


@intrinsic
def store(typing, array, row, vector):
    """Write a vector to a row of an array."""

    def make(context, builder, signature, arguments):
        pointer = _pointer(context, builder, array, *arguments[:2], vector.size)
        builder.store(
            arguments[2], builder.bitcast(pointer, arguments[2].type.as_pointer()), align=vector.dtype.bitwidth // 8
        )
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), make


@intrinsic
def spread(typing, array, place):
    """One number of a flattened array in all lanes."""
    vector = Vector(array.dtype)

    def make(context, builder, signature, arguments):
        number = builder.load(_pointer(context, builder, array, *arguments, 1))
        return _all_lanes(builder, number, context.get_value_type(vector))

    return vector(array, types.intp), make


@intrinsic
def every(typing, like, number):
    """A number in all lanes of a vector like another one."""

    def make(context, builder, signature, arguments):
        return _all_lanes(builder, arguments[1], context.get_value_type(like))

    return like(like, like.dtype), make


@intrinsic
def total(typing, vector):
    """Sum of the lanes of a vector."""

    def make(context, builder, signature, arguments):
        number, wide = context.get_value_type(vector.dtype), context.get_value_type(vector)
        name = f"llvm.vector.reduce.fadd.v{vector.size}f{vector.dtype.bitwidth}"
        reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(number, [number, wide]), name)
        return builder.call(reduce, [ir.Constant(number, -0.0), arguments[0]], fastmath=FREEDOM)

    return vector.dtype(vector), make


def _all_lanes(builder, number, wide):
    first = builder.insert_element(ir.Constant(wide, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), wide.count), None)
    return builder.shuffle_vector(first, ir.Constant(wide, ir.Undefined), zeros)


def _define(name: str, *operators: Callable) -> None:
    """Have ``operators`` of two vectors do the instruction ``name``."""

    @intrinsic
    def both(typing, first, second):
        def make(context, builder, signature, arguments):
            return getattr(builder, name)(*arguments, flags=FREEDOM)

        return first(first, second), make

    def chosen(first, second):
        if isinstance(first, Vector) and first == second:
            return lambda first, second: both(first, second)  # noqa: PLW0108  # numba wants a function
        return None

    for each in operators:
        overload(each)(chosen)


_define("fadd", operator.add, operator.iadd)
_define("fsub", operator.sub, operator.isub)
_define("fmul", operator.mul, operator.imul)
_define("fdiv", operator.truediv)
