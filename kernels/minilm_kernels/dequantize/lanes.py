"""Quantised integers as vectors of float32: what `simd.py` is for float32, for the bytes of a block.

Offsets count bytes from the array's first one and are not checked.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..vector_ir import INT, INT_VECTOR, LANES, VECTOR, float32x8

__all__ = [
    "HALVES", "dot_int8", "dot_nibbles", "half_bits", "load_high_nibbles", "load_int8", "load_low_nibbles", "prefetch",
]  # fmt: skip

# The float16 that each of the 65,536 patterns of 16 bits stands for: one load, where converting takes sixteen steps on
# processors that have no instruction for it. The scales of a weight lie in a few powers of two: a few kilobytes of it.
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
HALVES.flags.writeable = False

_BYTES = ir.VectorType(ir.IntType(8), LANES)
_HALF_BLOCK = ir.VectorType(ir.IntType(8), 2 * LANES)
_DIGITS = ir.VectorType(ir.IntType(16), 2 * LANES)
_PRODUCTS = ir.VectorType(INT, 2 * LANES)


@intrinsic
def load_int8(typingctx, array, offset):
    """The eight int8 from `offset` on."""

    def codegen(context, builder, signature, args):
        return builder.sitofp(builder.sext(_load(context, builder, signature, args, _BYTES), INT_VECTOR), VECTOR)

    return (float32x8(array, types.intp), codegen) if _is_uint8(array) else None


@intrinsic
def load_low_nibbles(typingctx, array, offset):
    """The low four bits of each of the eight bytes from `offset` on: 0 to 15."""

    def codegen(context, builder, signature, args):
        wide = builder.zext(_load(context, builder, signature, args, _BYTES), INT_VECTOR)
        return builder.sitofp(builder.and_(wide, ir.Constant(INT_VECTOR, [15] * LANES)), VECTOR)

    return (float32x8(array, types.intp), codegen) if _is_uint8(array) else None


@intrinsic
def load_high_nibbles(typingctx, array, offset):
    """The high four bits of each of the eight bytes from `offset` on: 0 to 15."""

    def codegen(context, builder, signature, args):
        wide = builder.zext(_load(context, builder, signature, args, _BYTES), INT_VECTOR)
        return builder.sitofp(builder.lshr(wide, ir.Constant(INT_VECTOR, [4] * LANES)), VECTOR)

    return (float32x8(array, types.intp), codegen) if _is_uint8(array) else None


@intrinsic
def dot_nibbles(typingctx, array, offset, digits, k):
    """The 32 nibbles of the 16 bytes from `offset` on, times 32 of the int16 `digits` from `k` on, in sums of four."""

    def codegen(context, builder, signature, args):
        array, offset, digits, k = args
        packed = _load(context, builder, signature, (array, offset), _HALF_BLOCK)
        low = builder.and_(packed, ir.Constant(_HALF_BLOCK, [15] * 2 * LANES))
        high = builder.lshr(packed, ir.Constant(_HALF_BLOCK, [4] * 2 * LANES))
        halves = (builder.zext(part, _DIGITS) for part in (low, high))
        return _dot(context, builder, signature, halves, digits, k)

    return _dot_type(array, digits), codegen


@intrinsic
def dot_int8(typingctx, array, offset, digits, k):
    """The 32 int8 from `offset` on, times 32 of the int16 `digits` from `k` on, in sums of four."""

    def codegen(context, builder, signature, args):
        array, offset, digits, k = args
        places = offset, builder.add(offset, offset.type(2 * LANES))
        halves = [
            builder.sext(_load(context, builder, signature, (array, place), _HALF_BLOCK), _DIGITS) for place in places
        ]
        return _dot(context, builder, signature, halves, digits, k)

    return _dot_type(array, digits), codegen


def _dot(context, builder, signature, halves, digits, k):
    """Products of neighbours added in 32 bits, for which AVX2 and its like have one instruction, and then as floats."""
    data = context.make_array(signature.args[2])(context, builder, digits).data
    undefined = ir.Constant(_PRODUCTS, ir.Undefined)
    even, odd = ([2 * i + side for i in range(LANES)] for side in (0, 1))
    total = None
    for number, half in enumerate(halves):
        place = builder.gep(data, [builder.add(k, k.type(number * 2 * LANES))])
        factor = builder.load(builder.bitcast(place, _DIGITS.as_pointer()), align=2)
        product = builder.mul(builder.sext(half, _PRODUCTS), builder.sext(factor, _PRODUCTS), flags=("nsw",))
        pairs = builder.add(
            builder.shuffle_vector(product, undefined, ir.Constant(INT_VECTOR, even)),
            builder.shuffle_vector(product, undefined, ir.Constant(INT_VECTOR, odd)),
            flags=("nsw",),
        )
        total = pairs if total is None else builder.add(total, pairs, flags=("nsw",))
    return builder.sitofp(total, VECTOR)


def _dot_type(array, digits):
    is_int16 = isinstance(digits, types.Array) and digits.dtype == types.int16
    return float32x8(array, types.intp, digits, types.intp) if _is_uint8(array) and is_int16 else None


@intrinsic
def half_bits(typingctx, array, offset):
    """The 16 bits at `offset`, as an index for HALVES."""

    def codegen(context, builder, signature, args):
        return builder.zext(_load(context, builder, signature, args, ir.IntType(16)), ir.IntType(64))

    return (types.uint64(array, types.intp), codegen) if _is_uint8(array) else None


@intrinsic
def prefetch(typingctx, array, offset):
    """Asks for the cache line of byte `offset` to be brought in, without waiting for it."""

    def codegen(context, builder, signature, args):
        address = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        integer = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [address.type, integer, integer, integer])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [address, integer(0), integer(3), integer(1)])
        return context.get_dummy_value()

    return (types.void(array, types.intp), codegen) if _is_uint8(array) else None


def _is_uint8(array) -> bool:
    return isinstance(array, types.Array) and array.dtype == types.uint8


def _load(context, builder, signature, args, kind):
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.load(builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer()), align=1)
