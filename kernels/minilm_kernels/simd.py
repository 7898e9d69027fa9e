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
from numba.extending import intrinsic, models, register_model

__all__ = [
    "LANES",
    "add",
    "broadcast",
    "call_address",
    "exp2",
    "fetch_add",
    "first_lanes",
    "fma",
    "from_lane",
    "load",
    "max_lanes",
    "maximum",
    "multiply",
    "prefetch",
    "select_equal",
    "splat",
    "store",
    "subtract",
    "sum_lanes",
    "transpose",
    "zeros",
]

LANES = 8

_LANE = ir.FloatType()
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_LANE, LANES)
_INT_VECTOR = ir.VectorType(_INT, LANES)

# Flags of our own keep Numba from adding `reassoc`, which would let LLVM cancel the rounding trick in `exp2`.
_FLAGS = ("contract",)


class _Float32x8(types.Type):
    def __init__(self):
        super().__init__(name="float32x8")


_float32x8 = _Float32x8()


@register_model(_Float32x8)
class _Float32x8Model(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _VECTOR)


@intrinsic
def load(typingctx, array, offset):
    """The eight elements of `array` from `offset` on."""

    def codegen(context, builder, signature, args):
        return _load(builder, _address(context, builder, signature, args))

    return (_float32x8(array, types.intp), codegen) if _is_float32(array) else None


@intrinsic
def store(typingctx, array, offset, x):
    """Writes `x` to the eight elements of `array` from `offset` on."""

    def codegen(context, builder, signature, args):
        _store(builder, args[2], _address(context, builder, signature, args))
        return context.get_dummy_value()

    return (types.void(array, types.intp, _float32x8), codegen) if _is_float32(array) else None


@intrinsic
def splat(typingctx, value):
    """The scalar `value` in all lanes."""
    return _float32x8(types.float32), lambda context, builder, signature, args: _splat(builder, args[0])


@intrinsic
def broadcast(typingctx, array, offset):
    """The element of `array` at `offset`, in all lanes."""

    def codegen(context, builder, signature, args):
        return _splat(builder, builder.load(_address(context, builder, signature, args)))

    return (_float32x8(array, types.intp), codegen) if _is_float32(array) else None


@intrinsic
def zeros(typingctx):
    """Zero in all lanes."""
    return _float32x8(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0.0] * LANES)


@intrinsic
def add(typingctx, x, y):
    """x + y, lane by lane."""
    return _float32x8(_float32x8, _float32x8), lambda context, builder, signature, args: builder.fadd(
        *args, flags=_FLAGS
    )


@intrinsic
def subtract(typingctx, x, y):
    """x - y, lane by lane."""
    return _float32x8(_float32x8, _float32x8), lambda context, builder, signature, args: builder.fsub(
        *args, flags=_FLAGS
    )


@intrinsic
def multiply(typingctx, x, y):
    """x * y, lane by lane."""
    return _float32x8(_float32x8, _float32x8), lambda context, builder, signature, args: builder.fmul(
        *args, flags=_FLAGS
    )


@intrinsic
def fma(typingctx, x, y, z):
    """x * y + z, lane by lane: rounded once where the processor can, twice elsewhere."""
    return _float32x8(*[_float32x8] * 3), lambda context, builder, signature, args: _fma(builder, *args)


@intrinsic
def maximum(typingctx, x, y):
    """The larger of x and y, lane by lane; y where one of them is NaN."""
    return _float32x8(_float32x8, _float32x8), lambda context, builder, signature, args: _maximum(builder, *args)


@intrinsic
def first_lanes(typingctx, x, count, fill):
    """The first `count` lanes of `x` (none if negative), and the scalar `fill` in the others."""

    def codegen(context, builder, signature, args):
        x, count, fill = args
        counts = _splat(builder, builder.trunc(count, _INT))
        kept = builder.icmp_signed("<", ir.Constant(_INT_VECTOR, list(range(LANES))), counts)
        return builder.select(kept, x, _splat(builder, fill))

    return _float32x8(_float32x8, types.intp, types.float32), codegen


@intrinsic
def from_lane(typingctx, x, start, fill):
    """The lanes of `x` from `start` on (all if negative), and the scalar `fill` in those before."""

    def codegen(context, builder, signature, args):
        x, start, fill = args
        starts = _splat(builder, builder.trunc(start, _INT))
        kept = builder.icmp_signed(">=", ir.Constant(_INT_VECTOR, list(range(LANES))), starts)
        return builder.select(kept, x, _splat(builder, fill))

    return _float32x8(_float32x8, types.intp, types.float32), codegen


@intrinsic
def select_equal(typingctx, x, y, equal, other):
    """`equal` in the lanes where x == y, `other` elsewhere."""

    def codegen(context, builder, signature, args):
        x, y, equal, other = args
        return builder.select(builder.fcmp_ordered("==", x, y, flags=_FLAGS), equal, other)

    return _float32x8(*[_float32x8] * 4), codegen


@intrinsic
def sum_lanes(typingctx, x):
    """The sum of the eight lanes, by pairs: ((0+4) + (2+6)) + ((1+5) + (3+7))."""

    def codegen(context, builder, signature, args):
        return _fold(builder, args[0], lambda x, y: builder.fadd(x, y, flags=_FLAGS))

    return types.float32(_float32x8), codegen


@intrinsic
def max_lanes(typingctx, x):
    """The largest of the eight lanes."""

    def codegen(context, builder, signature, args):
        return _fold(builder, args[0], lambda x, y: _maximum(builder, x, y))

    return types.float32(_float32x8), codegen


# Interpolates 2^f at Chebyshev points of [-1/2, 1/2] with p(0) = 1, highest power first: relative error 1e-8.
_EXP2 = (1.5453163e-4, 1.3390863e-3, 9.618083e-3, 5.550357e-2, 2.4022651e-1, 6.9314718e-1, 1.0)


@intrinsic
def exp2(typingctx, x):
    """2 to the power of x, lane by lane, for x < 127: relative error below 1.2e-7, zero below -126, NaN for NaN.

    With n = round(x) and f = x - n it is 2^n p(f): a polynomial p, whose exponent bits are then raised by n.
    """

    def codegen(context, builder, signature, args):
        (x,) = args
        # Adding 1.5 * 2^23 leaves no bits for the fraction: the sum is rounded to an integer, held in its low bits.
        magic = _constant(1.5 * 2**23)
        shifted = builder.fadd(x, magic, flags=_FLAGS)
        fraction = builder.fsub(x, builder.fsub(shifted, magic, flags=_FLAGS), flags=_FLAGS)
        power = _constant(_EXP2[0])
        for coefficient in _EXP2[1:]:
            power = _fma(builder, power, fraction, _constant(coefficient))
        exponent = builder.shl(builder.bitcast(shifted, _INT_VECTOR), ir.Constant(_INT_VECTOR, [23] * LANES))
        scaled = builder.bitcast(builder.add(builder.bitcast(power, _INT_VECTOR), exponent), _VECTOR)
        vanishes = builder.fcmp_ordered("<", x, _constant(-126.0), flags=_FLAGS)
        return builder.select(vanishes, _constant(0.0), scaled)

    return _float32x8(_float32x8), codegen


@intrinsic
def transpose(typingctx, array, source, source_step, target, target_step):
    """Copies the 8 x 8 block of `array` at offset `source` to offset `target`, rows and columns exchanged.

    `source_step` and `target_step` are the distances from row to row. The blocks don't overlap.
    """

    def codegen(context, builder, signature, args):
        array, source, source_step, target, target_step = args

        def row(first, step, i):
            offset = builder.add(first, builder.mul(step, step.type(i)))
            return _address(context, builder, signature, (array, offset))

        rows = [_load(builder, row(source, source_step, i)) for i in range(LANES)]
        # Exchanging the off-diagonal blocks of 1 x 1, then 2 x 2, then 4 x 4 elements.
        for size in (1, 2, 4):
            upper = ir.Constant(_INT_VECTOR, [i - size + LANES if i & size else i for i in range(LANES)])
            lower = ir.Constant(_INT_VECTOR, [i + LANES if i & size else i + size for i in range(LANES)])
            for i in range(LANES):
                if not i & size:
                    x, y = rows[i], rows[i + size]
                    rows[i], rows[i + size] = builder.shuffle_vector(x, y, upper), builder.shuffle_vector(x, y, lower)
        for i in range(LANES):
            _store(builder, rows[i], row(target, target_step, i))
        return context.get_dummy_value()

    return (types.void(array, *[types.intp] * 4), codegen) if _is_float32(array) else None


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
        address = builder.bitcast(_address(context, builder, signature, args), ir.IntType(8).as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [address.type, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [address, _INT(0), _INT(3), _INT(1)])
        return context.get_dummy_value()

    return (types.void(array, types.intp), codegen) if _is_float32(array) else None


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


def _is_float32(array) -> bool:
    return isinstance(array, types.Array) and array.dtype == types.float32


def _address(context, builder, signature, args):
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


def _load(builder, address):
    return builder.load(builder.bitcast(address, _VECTOR.as_pointer()), align=4)


def _store(builder, value, address):
    builder.store(value, builder.bitcast(address, _VECTOR.as_pointer()), align=4)


def _constant(value: float):
    return ir.Constant(_VECTOR, [value] * LANES)


def _splat(builder, scalar):
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INT_VECTOR, [0] * LANES))


def _fma(builder, x, y, z):
    function_type = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fmuladd.v{LANES}f32")
    return builder.call(function, [x, y, z])


def _maximum(builder, x, y):
    return builder.select(builder.fcmp_ordered(">", x, y, flags=_FLAGS), x, y)


def _fold(builder, vector, combine):
    """Combines the upper half of the lanes with the lower until one is left."""
    width = LANES
    while width > 1:
        width //= 2
        mask = ir.VectorType(_INT, width)
        undefined = ir.Constant(vector.type, ir.Undefined)
        low = builder.shuffle_vector(vector, undefined, ir.Constant(mask, list(range(width))))
        high = builder.shuffle_vector(vector, undefined, ir.Constant(mask, list(range(width, 2 * width))))
        vector = combine(low, high)
    return builder.extract_element(vector, _INT(0))
