"""What a modifier is compiled to: operations on eight columns of a row of scores at once.

Beside `simd`'s float32x8 there are eight 32-bit or 64-bit integers and eight truth values. Each operation takes
operands of one kind (`graph.py` sees to it), and follows NumPy: integer division rounds down and gives 0 for a division
by zero, `minimum` and `maximum` keep NaN. Float operations are done as written: the same modifier gives the same bits.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from ...vector_ir import LANES, float32x8
from . import lane_math

__all__ = [
    "VECTORS",
    "absolute",
    "add",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "ceil",
    "columns",
    "cos",
    "divide",
    "equal",
    "exp",
    "exp2",
    "floor",
    "floor_divide",
    "invert",
    "less",
    "less_equal",
    "log",
    "log2",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "remainder",
    "rint",
    "sin",
    "splat",
    "sqrt",
    "subtract",
    "tanh",
    "to_float32",
    "to_int32",
    "to_int64",
    "trunc",
    "where",
]

_FLAGS = ("contract", "arcp")


class _Lanes(types.Type):
    def __init__(self, name):
        super().__init__(name=name)


def _vector_of(scalar, name):
    kind = type(name, (_Lanes,), {})

    class Model(models.PrimitiveModel):
        def __init__(self, manager, numba_type):
            super().__init__(manager, numba_type, ir.VectorType(scalar, LANES))

    register_model(kind)(Model)
    return kind(name)


int32x8 = _vector_of(ir.IntType(32), "int32x8")
int64x8 = _vector_of(ir.IntType(64), "int64x8")
bool8 = _vector_of(ir.IntType(1), "bool8")
VECTORS = {types.float32: float32x8, types.int32: int32x8, types.int64: int64x8, types.boolean: bool8}


def _is_float(vector) -> bool:
    return isinstance(vector.type.element, ir.FloatType)


def _all(vector_type, value):
    return ir.Constant(vector_type, [value] * LANES)


@intrinsic
def splat(typingctx, value):
    """The scalar in all lanes."""

    def codegen(context, builder, signature, args):
        scalar = context.cast(builder, args[0], signature.args[0], value)
        scalar = builder.trunc(scalar, ir.IntType(1)) if value == types.boolean else scalar
        return splat_lanes(builder, scalar)

    value = types.unliteral(value)
    return VECTORS[value](value), codegen


@intrinsic
def columns(typingctx, first):
    """`first` and the seven numbers after it."""

    def codegen(context, builder, signature, args):
        first = splat_lanes(builder, builder.trunc(args[0], ir.IntType(32)))
        return builder.add(first, ir.Constant(first.type, list(range(LANES))))

    return int32x8(types.int64), codegen


def _unary(code, result=None):
    @intrinsic
    def operation(typingctx, x):
        return (result or x)(x), lambda context, builder, signature, args: code(builder, args[0])

    return operation


def _binary(code, result=None):
    @intrinsic
    def operation(typingctx, x, y):
        return (result or x)(x, y), lambda context, builder, signature, args: code(builder, *args)

    return operation


def _float_or_int(float_name, int_name):
    def code(builder, x, y):
        return getattr(builder, float_name)(x, y, flags=_FLAGS) if _is_float(x) else getattr(builder, int_name)(x, y)

    return code


def _compare(operator, unordered=False):
    def code(builder, x, y):
        if _is_float(x):
            return getattr(builder, "fcmp_unordered" if unordered else "fcmp_ordered")(operator, x, y)
        return (
            builder.icmp_signed(operator, x, y) if x.type.element.width > 1 else builder.icmp_unsigned(operator, x, y)
        )

    return code


def _negate(builder, x):
    return builder.fneg(x) if _is_float(x) else builder.neg(x)


def _absolute(builder, x):
    return _llvm(builder, "fabs", x) if _is_float(x) else _extreme("<")(builder, builder.neg(x), x, flip=True)


def _extreme(operator):
    def code(builder, x, y, flip=False):
        if _is_float(x):
            better = builder.or_(builder.fcmp_ordered(operator, x, y), builder.fcmp_unordered("uno", x, x))
        else:
            better = builder.icmp_signed(">" if flip else operator, x, y)
        return builder.select(better, x, y)

    return code


def _floor_division(builder, x, y):
    return _llvm(builder, "floor", builder.fdiv(x, y)) if _is_float(x) else _divide_down(builder, x, y)[0]


def _remainder(builder, x, y):
    if _is_float(x):
        whole = _llvm(builder, "floor", builder.fdiv(x, y))
        return builder.fsub(x, builder.fmul(whole, y))
    return _divide_down(builder, x, y)[1]


def _divide_down(builder, x, y):
    """Quotient rounded down and remainder; the processor traps where the divisor is 0 or the quotient overflows."""
    zero, one, minus_one = (_all(x.type, value) for value in (0, 1, -1))
    is_zero, is_minus_one = builder.icmp_signed("==", y, zero), builder.icmp_signed("==", y, minus_one)
    divisor = builder.select(builder.or_(is_zero, is_minus_one), one, y)
    quotient = builder.sdiv(x, divisor)
    rest = builder.sub(x, builder.mul(quotient, divisor))
    signs_differ = builder.icmp_signed("<", builder.xor(rest, divisor), zero)
    down = builder.and_(builder.icmp_signed("!=", rest, zero), signs_differ)
    quotient = builder.select(down, builder.sub(quotient, one), quotient)
    rest = builder.select(down, builder.add(rest, divisor), rest)
    quotient = builder.select(is_minus_one, builder.neg(x), builder.select(is_zero, zero, quotient))
    return quotient, rest


def _to_float32(builder, x):
    kind = ir.VectorType(ir.FloatType(), LANES)
    return builder.uitofp(x, kind) if x.type.element.width == 1 else builder.sitofp(x, kind)


def _to_int(bits):
    def code(builder, x):
        kind = ir.VectorType(ir.IntType(bits), LANES)
        if _is_float(x):
            name = f"llvm.fptosi.sat.v{LANES}i{bits}.v{LANES}f32"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [x.type]), name)
            return builder.call(function, [x])
        if x.type.element.width == 1:
            return builder.zext(x, kind)
        return builder.trunc(x, kind) if x.type.element.width > bits else builder.sext(x, kind)

    return code


add = _binary(_float_or_int("fadd", "add"))
subtract = _binary(_float_or_int("fsub", "sub"))
multiply = _binary(_float_or_int("fmul", "mul"))
divide = _binary(lambda builder, x, y: builder.fdiv(x, y, flags=_FLAGS))
floor_divide = _binary(_floor_division)
remainder = _binary(_remainder)
negative = _unary(_negate)
absolute = _unary(_absolute)
minimum, maximum = _binary(_extreme("<")), _binary(_extreme(">"))
less, less_equal = _binary(_compare("<"), bool8), _binary(_compare("<="), bool8)
equal, not_equal = _binary(_compare("=="), bool8), _binary(_compare("!=", unordered=True), bool8)
bitwise_and = _binary(lambda builder, x, y: builder.and_(x, y))
bitwise_or = _binary(lambda builder, x, y: builder.or_(x, y))
bitwise_xor = _binary(lambda builder, x, y: builder.xor(x, y))
invert = _unary(lambda builder, x: builder.not_(x))
to_float32, to_int32, to_int64 = (
    _unary(_to_float32, float32x8),
    _unary(_to_int(32), int32x8),
    _unary(_to_int(64), int64x8),
)


@intrinsic
def where(typingctx, condition, x, y):
    """The lanes of `x` where `condition`, else those of `y`."""
    return x(condition, x, y), lambda context, builder, signature, args: builder.select(*args)


def _llvm(builder, name, *args):
    function_type = ir.FunctionType(args[0].type, [x.type for x in args])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, args)


def _by_llvm(name):
    return lambda builder, *args: _llvm(builder, name, *args)


exp, tanh = _unary(lane_math.exp), _unary(lane_math.tanh)
sqrt, floor, ceil, rint, trunc = (_unary(_by_llvm(name)) for name in ("sqrt", "floor", "ceil", "rint", "trunc"))
# The C library's, a lane at a time: 1 ulp, and ten times as slow as the others.
exp2, log, log2, sin, cos = (_unary(_by_llvm(name)) for name in ("exp2", "log", "log2", "sin", "cos"))
power = _binary(_by_llvm("pow"))


def splat_lanes(builder, scalar):
    kind = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)
