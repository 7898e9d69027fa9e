"""Quantised integers as vectors of float32: what `simd.py` is for float32, for the bytes of a block.

Offsets count bytes from the array's first one and are not checked.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..vector_ir import INT_VECTOR, LANES, VECTOR, float32x8

__all__ = ["HALVES", "half_bits", "load_high_nibbles", "load_int8", "load_low_nibbles", "prefetch"]

# The float16 that each of the 65,536 patterns of 16 bits stands for: one load, where converting takes sixteen steps on
# processors that have no instruction for it. The scales of a weight lie in a few powers of two: a few kilobytes of it.
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
HALVES.flags.writeable = False

_BYTES = ir.VectorType(ir.IntType(8), LANES)


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
