"""Eight float32 lanes in LLVM's own terms: what the intrinsics of `simd.py` and `tile_product.py` are written with."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

__all__ = [
    "FLAGS", "INT", "INT_VECTOR", "LANES", "VECTOR", "address", "constant", "float32x8", "fold", "fused_multiply_add",
    "is_float32", "larger", "load_vector", "splat_scalar", "store_vector",
]  # fmt: skip

LANES = 8

INT = ir.IntType(32)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
INT_VECTOR = ir.VectorType(INT, LANES)

# Flags of our own keep Numba from adding `reassoc`, which would let LLVM cancel the rounding trick in `exp2`.
FLAGS = ("contract",)


class _Float32x8(types.Type):
    def __init__(self):
        super().__init__(name="float32x8")


float32x8 = _Float32x8()


@register_model(_Float32x8)
class _Float32x8Model(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, VECTOR)


def is_float32(array) -> bool:
    return isinstance(array, types.Array) and array.dtype == types.float32


def address(context, builder, signature, args, position=0):
    """Of element args[1] of the array args[0], which is the argument at `position` of the signature."""
    data = context.make_array(signature.args[position])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


def load_vector(builder, address):
    return builder.load(builder.bitcast(address, VECTOR.as_pointer()), align=4)


def store_vector(builder, value, address):
    builder.store(value, builder.bitcast(address, VECTOR.as_pointer()), align=4)


def constant(value: float):
    return ir.Constant(VECTOR, [value] * LANES)


def splat_scalar(builder, scalar):
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, INT(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INT_VECTOR, [0] * LANES))


def fused_multiply_add(builder, x, y, z):
    function_type = ir.FunctionType(VECTOR, [VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fmuladd.v{LANES}f32")
    return builder.call(function, [x, y, z])


def larger(builder, x, y):
    return builder.select(builder.fcmp_ordered(">", x, y, flags=FLAGS), x, y)


def fold(builder, vector, combine):
    """Combines the upper half of the lanes with the lower until one is left."""
    width = LANES
    while width > 1:
        width //= 2
        mask = ir.VectorType(INT, width)
        undefined = ir.Constant(vector.type, ir.Undefined)
        low = builder.shuffle_vector(vector, undefined, ir.Constant(mask, list(range(width))))
        high = builder.shuffle_vector(vector, undefined, ir.Constant(mask, list(range(width, 2 * width))))
        vector = combine(low, high)
    return builder.extract_element(vector, INT(0))
