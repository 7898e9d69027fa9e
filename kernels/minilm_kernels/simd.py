"""Eight float32 lanes as one value inside a Numba kernel: explicit vectors where auto-vectorising is not enough.

    x = load(a, i)              # a[i], ..., a[i + 7]: `i` counts elements from the array's first one
    y = fma(x, splat(s), y)     # x * s + y
    store(a, i, y)

A loop over a register tile of such values reaches what a BLAS reaches; Numba's own loops reach a tenth of it. What is
emitted is LLVM's `<8 x float>`, nothing of one maker's: AVX holds it in one register, SSE and Arm's NEON in two, and
where there is no fused multiply-add LLVM multiplies and adds. Offsets are not checked. Arrays may have any layout:
`load` and `store` go by the address of element [0, ..., 0] alone, so the lanes must lie next to each other.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .vector_ir import (
    FLAGS,
    INT,
    INT_VECTOR,
    LANES,
    VECTOR,
    address,
    constant,
    float32x8,
    fold,
    fused_multiply_add,
    is_float32,
    larger,
    load_vector,
    splat_scalar,
    store_vector,
)

__all__ = [
    "LANES",
    "add",
    "broadcast",
    "call_address",
    "divide",
    "exp2",
    "fetch_add",
    "first_lanes",
    "fma",
    "from_lane",
    "load",
    "max_lanes",
    "maximum",
    "minimum",
    "multiply",
    "prefetch",
    "select_equal",
    "select_less",
    "splat",
    "store",
    "subtract",
    "sum_lanes",
    "transpose",
    "zeros",
]


@intrinsic
def load(typingctx, array, offset):
    """The eight elements of `array` from `offset` on."""

    def codegen(context, builder, signature, args):
        return load_vector(builder, address(context, builder, signature, args))

    return (float32x8(array, types.intp), codegen) if is_float32(array) else None


@intrinsic
def store(typingctx, array, offset, x):
    """Writes `x` to the eight elements of `array` from `offset` on."""

    def codegen(context, builder, signature, args):
        store_vector(builder, args[2], address(context, builder, signature, args))
        return context.get_dummy_value()

    return (types.void(array, types.intp, float32x8), codegen) if is_float32(array) else None


@intrinsic
def splat(typingctx, value):
    """The scalar `value` in all lanes."""
    return float32x8(types.float32), lambda context, builder, signature, args: splat_scalar(builder, args[0])


@intrinsic
def broadcast(typingctx, array, offset):
    """The element of `array` at `offset`, in all lanes."""

    def codegen(context, builder, signature, args):
        return splat_scalar(builder, builder.load(address(context, builder, signature, args)))

    return (float32x8(array, types.intp), codegen) if is_float32(array) else None


@intrinsic
def zeros(typingctx):
    """Zero in all lanes."""
    return float32x8(), lambda context, builder, signature, args: ir.Constant(VECTOR, [0.0] * LANES)


@intrinsic
def add(typingctx, x, y):
    """x + y, lane by lane."""
    return float32x8(float32x8, float32x8), lambda context, builder, signature, args: builder.fadd(*args, flags=FLAGS)


@intrinsic
def subtract(typingctx, x, y):
    """x - y, lane by lane."""
    return float32x8(float32x8, float32x8), lambda context, builder, signature, args: builder.fsub(*args, flags=FLAGS)


@intrinsic
def multiply(typingctx, x, y):
    """x * y, lane by lane."""
    return float32x8(float32x8, float32x8), lambda context, builder, signature, args: builder.fmul(*args, flags=FLAGS)


@intrinsic
def divide(typingctx, x, y):
    """x / y, lane by lane."""
    return float32x8(float32x8, float32x8), lambda context, builder, signature, args: builder.fdiv(*args, flags=FLAGS)


@intrinsic
def fma(typingctx, x, y, z):
    """x * y + z, lane by lane: rounded once where the processor can, twice elsewhere."""
    return float32x8(*[float32x8] * 3), lambda context, builder, signature, args: fused_multiply_add(builder, *args)


@intrinsic
def maximum(typingctx, x, y):
    """The larger of x and y, lane by lane; y where one of them is NaN."""
    return float32x8(float32x8, float32x8), lambda context, builder, signature, args: larger(builder, *args)


@intrinsic
def minimum(typingctx, x, y):
    """The smaller of x and y, lane by lane; y where one of them is NaN."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", *args, flags=FLAGS), *args)

    return float32x8(float32x8, float32x8), codegen


@intrinsic
def first_lanes(typingctx, x, count, fill):
    """The first `count` lanes of `x` (none if negative), and the scalar `fill` in the others."""

    def codegen(context, builder, signature, args):
        x, count, fill = args
        counts = splat_scalar(builder, builder.trunc(count, INT))
        kept = builder.icmp_signed("<", ir.Constant(INT_VECTOR, list(range(LANES))), counts)
        return builder.select(kept, x, splat_scalar(builder, fill))

    return float32x8(float32x8, types.intp, types.float32), codegen


@intrinsic
def from_lane(typingctx, x, start, fill):
    """The lanes of `x` from `start` on (all if negative), and the scalar `fill` in those before."""

    def codegen(context, builder, signature, args):
        x, start, fill = args
        starts = splat_scalar(builder, builder.trunc(start, INT))
        kept = builder.icmp_signed(">=", ir.Constant(INT_VECTOR, list(range(LANES))), starts)
        return builder.select(kept, x, splat_scalar(builder, fill))

    return float32x8(float32x8, types.intp, types.float32), codegen


@intrinsic
def select_equal(typingctx, x, y, equal, other):
    """`equal` in the lanes where x == y, `other` elsewhere."""
    return float32x8(*[float32x8] * 4), lambda context, builder, signature, args: _select(builder, "==", *args)


@intrinsic
def select_less(typingctx, x, y, less, other):
    """`less` in the lanes where x < y, `other` elsewhere."""
    return float32x8(*[float32x8] * 4), lambda context, builder, signature, args: _select(builder, "<", *args)


def _select(builder, comparison, x, y, chosen, other):
    return builder.select(builder.fcmp_ordered(comparison, x, y, flags=FLAGS), chosen, other)


@intrinsic
def sum_lanes(typingctx, x):
    """The sum of the eight lanes, by pairs: ((0+4) + (2+6)) + ((1+5) + (3+7))."""

    def codegen(context, builder, signature, args):
        return fold(builder, args[0], lambda x, y: builder.fadd(x, y, flags=FLAGS))

    return types.float32(float32x8), codegen


@intrinsic
def max_lanes(typingctx, x):
    """The largest of the eight lanes."""

    def codegen(context, builder, signature, args):
        return fold(builder, args[0], lambda x, y: larger(builder, x, y))

    return types.float32(float32x8), codegen


# Interpolates 2^f at Chebyshev points of [-1/2, 1/2] with p(0) = 1, highest power first: relative error 1e-8.
_EXP2 = (1.5453163e-4, 1.3390863e-3, 9.618083e-3, 5.550357e-2, 2.4022651e-1, 6.9314718e-1, 1.0)


@intrinsic
def exp2(typingctx, x):
    """2 to the power of x <= 128, lane by lane: relative error below 1.2e-7, zero below -126, inf at 128, NaN for NaN.

    With n = round(x) and f = x - n it is 2^n p(f): a polynomial p, whose exponent bits are then raised by n.
    """

    def codegen(context, builder, signature, args):
        (x,) = args
        # Adding 1.5 * 2^23 leaves no bits for the fraction: the sum is rounded to an integer, held in its low bits.
        magic = constant(1.5 * 2**23)
        shifted = builder.fadd(x, magic, flags=FLAGS)
        fraction = builder.fsub(x, builder.fsub(shifted, magic, flags=FLAGS), flags=FLAGS)
        power = constant(_EXP2[0])
        for coefficient in _EXP2[1:]:
            power = fused_multiply_add(builder, power, fraction, constant(coefficient))
        exponent = builder.shl(builder.bitcast(shifted, INT_VECTOR), ir.Constant(INT_VECTOR, [23] * LANES))
        scaled = builder.bitcast(builder.add(builder.bitcast(power, INT_VECTOR), exponent), VECTOR)
        vanishes = builder.fcmp_ordered("<", x, constant(-126.0), flags=FLAGS)
        return builder.select(vanishes, constant(0.0), scaled)

    return float32x8(float32x8), codegen


@intrinsic
def transpose(typingctx, array, source, source_step, target, target_step):
    """Copies the 8 x 8 block of `array` at offset `source` to offset `target`, rows and columns exchanged.

    `source_step` and `target_step` are the distances from row to row. The blocks don't overlap.
    """

    def codegen(context, builder, signature, args):
        array, source, source_step, target, target_step = args

        def row(first, step, i):
            offset = builder.add(first, builder.mul(step, step.type(i)))
            return address(context, builder, signature, (array, offset))

        rows = [load_vector(builder, row(source, source_step, i)) for i in range(LANES)]
        # Exchanging the off-diagonal blocks of 1 x 1, then 2 x 2, then 4 x 4 elements.
        for size in (1, 2, 4):
            upper = ir.Constant(INT_VECTOR, [i - size + LANES if i & size else i for i in range(LANES)])
            lower = ir.Constant(INT_VECTOR, [i + LANES if i & size else i + size for i in range(LANES)])
            for i in range(LANES):
                if not i & size:
                    x, y = rows[i], rows[i + size]
                    rows[i], rows[i + size] = builder.shuffle_vector(x, y, upper), builder.shuffle_vector(x, y, lower)
        for i in range(LANES):
            store_vector(builder, rows[i], row(target, target_step, i))
        return context.get_dummy_value()

    return (types.void(array, *[types.intp] * 4), codegen) if is_float32(array) else None


@intrinsic
def fetch_add(typingctx, counter, amount):
    """Adds to the int64 `counter[0]` in one step that no other thread divides, and returns what it was before."""

    def codegen(context, builder, signature, args):
        pointer = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", pointer, args[1], "monotonic")

    if not (isinstance(counter, types.Array) and counter.dtype == types.int64):
        return None
    return types.int64(counter, types.int64), codegen


@intrinsic
def prefetch(typingctx, array, offset):
    """Asks for the cache line of the element of `array` at `offset` to be brought in, without waiting for it."""

    def codegen(context, builder, signature, args):
        line = builder.bitcast(address(context, builder, signature, args), ir.IntType(8).as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [line.type, INT, INT, INT])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [line, INT(0), INT(3), INT(1)])
        return context.get_dummy_value()

    return (types.void(array, types.intp), codegen) if is_float32(array) else None


@intrinsic
def call_address(typingctx, address, *args):
    """Calls the compiled Numba function at `address`, which returns nothing and takes arguments of these very types."""

    def codegen(context, builder, signature, values):
        argument_types = signature.args[1].types
        arguments = [builder.extract_value(values[1], i) for i in range(len(argument_types))]
        function_type = context.call_conv.get_function_type(types.none, argument_types)
        function = builder.inttoptr(values[0], function_type.as_pointer())
        status, _ = context.call_conv.call_function(builder, function, types.none, argument_types, arguments)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(types.intp, types.StarArgTuple(args)), codegen
