"""Vector operations that decoding needs besides those of `simd.py`."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..vector_ir import FLAGS, INT, INT_VECTOR, LANES, VECTOR, address, constant, float32x8, is_float32, splat_scalar

__all__ = ["load_first", "sums_of_lanes"]

_MASK = ir.VectorType(ir.IntType(1), LANES)


@intrinsic
def load_first(typingctx, array, offset, count):
    """The `count` elements of `array` from `offset` on, eight at most, and zero in the other lanes: no more is read."""

    def codegen(context, builder, signature, args):
        array, offset, count = args
        pointer = address(context, builder, signature, (array, offset))
        pointer = builder.bitcast(pointer, VECTOR.as_pointer())
        counts = splat_scalar(builder, builder.trunc(count, INT))
        mask = builder.icmp_signed("<", ir.Constant(INT_VECTOR, list(range(LANES))), counts)
        function_type = ir.FunctionType(VECTOR, [pointer.type, INT, _MASK, VECTOR])
        name = f"llvm.masked.load.v{LANES}f32.p0"
        function = cgutils.get_or_insert_function(builder.module, function_type, name)
        return builder.call(function, [pointer, INT(4), mask, constant(0.0)])

    return (float32x8(array, types.intp, types.intp), codegen) if is_float32(array) else None


@intrinsic
def sums_of_lanes(typingctx, x0, x1, x2, x3, x4, x5, x6, x7):
    """The sum of the lanes of each of eight vectors, in the lanes of one."""

    def codegen(context, builder, signature, vectors):
        def combine(x, y, *masks):
            masks = [ir.Constant(INT_VECTOR, mask) for mask in masks]
            return builder.fadd(*(builder.shuffle_vector(x, y, mask) for mask in masks), flags=FLAGS)

        # Each step adds up halves of lanes; but for the first, within groups of four, as processors shuffle best.
        x = [
            combine(x, y, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
            for x, y in zip(vectors[:4], vectors[4:])
        ]
        x = [combine(*pair, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]) for pair in (x[:2], x[2:])]
        return combine(*x, [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15])

    return float32x8(*[float32x8] * 8), codegen
