"""Eight elements of an array at once: of any dtype, side by side or anywhere.

Arrays are addresses here, and no index is checked: `lower.py` has seen to that.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...simd import LANES, load
from .lanes import VECTORS, float32x8, splat_lanes

__all__ = ["contiguous", "element", "gather", "load", "store_first"]

_COUNT = list(range(LANES))


@intrinsic
def store_first(typingctx, array, offset, x, count):
    """Writes the first `count` lanes of `x` to the elements of `array` from `offset` on; those after them stay."""

    def codegen(context, builder, signature, args):
        array, offset, x, count = args
        data = context.make_array(signature.args[0])(context, builder, array).data
        first = builder.gep(data, [offset])
        # A branch, nearly always the same: a masked store takes some processors as long as twenty plain ones.
        with builder.if_else(builder.icmp_signed(">=", count, count.type(LANES)), likely=True) as (whole, part):
            with whole:
                builder.store(x, builder.bitcast(first, x.type.as_pointer()), align=4)
            with part:
                for i in range(LANES - 1):
                    with builder.if_then(builder.icmp_signed("<", count.type(i), count)):
                        lane = builder.extract_element(x, ir.IntType(32)(i))
                        builder.store(lane, builder.gep(first, [count.type(i)]))
        return context.get_dummy_value()

    return types.void(array, types.int64, float32x8, types.int64), codegen


@intrinsic
def gather(typingctx, address, index, count, dtype):
    """Elements of the array of this dtype at `address`, those of the numbers in `index`; lanes from `count` on repeat
    the first.

    No element is touched but these.
    """

    def codegen(context, builder, signature, args):
        address, index, count, _ = args
        pointer = _pointer(context, builder, address, dtype.dtype)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), _COUNT)
        given = builder.icmp_signed("<", lanes, splat_lanes(builder, builder.trunc(count, ir.IntType(32))))
        first = splat_lanes(builder, builder.extract_element(index, ir.IntType(32)(0)))
        index = builder.select(given, index, first)
        lanes = [builder.load(builder.gep(pointer, [_lane(builder, index, i)])) for i in _COUNT]
        return _converted(builder, _joined(builder, lanes), dtype.dtype)

    return _result_of(dtype)(types.int64, index, types.int64, dtype), codegen


@intrinsic
def contiguous(typingctx, address, start, step, count, dtype):
    """The elements numbered start, start + step, ...; lanes from `count` on repeat the one before. `step` is 1 or -1.

    No element is touched but these.
    """

    def codegen(context, builder, signature, args):
        address, start, step, count, _ = args
        number = ir.IntType(64)
        pointer = _pointer(context, builder, address, dtype.dtype)
        backwards = builder.icmp_signed("<", step, number(0))
        whole = builder.icmp_signed(">=", count, number(LANES))
        with builder.if_else(whole, likely=True) as (then, otherwise):
            with then:
                lowest = builder.select(backwards, builder.sub(start, number(LANES - 1)), start)
                kind = ir.VectorType(pointer.type.pointee, LANES)
                row = builder.load(builder.bitcast(builder.gep(pointer, [lowest]), kind.as_pointer()), align=1)
                reverse = ir.Constant(ir.VectorType(ir.IntType(32), LANES), _COUNT[::-1])
                undefined = ir.Constant(kind, ir.Undefined)
                row = builder.select(backwards, builder.shuffle_vector(row, undefined, reverse), row)
                from_whole = builder.block
            with otherwise:
                last = builder.sub(count, number(1))
                lanes = []
                for i in _COUNT:
                    lane = builder.select(builder.icmp_signed("<", number(i), last), number(i), last)
                    place = builder.add(start, builder.mul(step, lane))
                    lanes.append(builder.load(builder.gep(pointer, [place])))
                part = _joined(builder, lanes)
                from_part = builder.block
        found = builder.phi(row.type)
        found.add_incoming(row, from_whole)
        found.add_incoming(part, from_part)
        return _converted(builder, found, dtype.dtype)

    return _result_of(dtype)(types.int64, types.int64, types.int64, types.int64, dtype), codegen


@intrinsic
def element(typingctx, address, index, dtype):
    """Element number `index` of the array of this dtype at `address`."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, args[0], dtype.dtype)
        value = builder.load(builder.gep(pointer, [args[1]]))
        if dtype.dtype == types.boolean:
            return context.cast(
                builder, builder.icmp_unsigned("!=", value, value.type(0)), types.boolean, types.boolean
            )
        return context.cast(builder, value, dtype.dtype, _scalar_of(dtype))

    return _scalar_of(dtype)(types.int64, types.int64, dtype), codegen


def _scalar_of(dtype):
    """As what an array's elements are computed with: float32, int64 if int32 can't hold them, int32 or bool."""
    if dtype.dtype == types.boolean:
        return types.boolean
    if isinstance(dtype.dtype, types.Float):
        return types.float32
    return types.int32 if dtype.dtype.bitwidth <= (32 if dtype.dtype.signed else 16) else types.int64


def _result_of(dtype):
    return VECTORS[_scalar_of(dtype)]


def _pointer(context, builder, address, dtype):
    kind = ir.IntType(8) if dtype == types.boolean else context.get_value_type(dtype)
    return builder.inttoptr(address, kind.as_pointer())


def _converted(builder, vector, dtype):
    wanted = {types.float32: ir.FloatType(), types.int32: ir.IntType(32), types.int64: ir.IntType(64)}
    if dtype == types.boolean:
        return builder.icmp_unsigned("!=", vector, ir.Constant(vector.type, [0] * LANES))
    if isinstance(dtype, types.Float):
        kind = ir.VectorType(ir.FloatType(), LANES)
        return vector if dtype == types.float32 else builder.fptrunc(vector, kind)
    kind = ir.VectorType(wanted[_scalar_of(types.DType(dtype))], LANES)
    if vector.type == kind:
        return vector
    return builder.sext(vector, kind) if dtype.signed else builder.zext(vector, kind)


def _lane(builder, vector, i):
    return builder.sext(builder.extract_element(vector, ir.IntType(32)(i)), ir.IntType(64))


def _joined(builder, scalars):
    vector = ir.Constant(ir.VectorType(scalars[0].type, LANES), ir.Undefined)
    for i, scalar in enumerate(scalars):
        vector = builder.insert_element(vector, scalar, ir.IntType(32)(i))
    return vector
