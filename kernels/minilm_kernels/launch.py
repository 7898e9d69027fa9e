"""A kernel over parts of its work, on the pool's threads, for a tenth of the compile time of a `prange` loop.

    @jit(inline=True)
    def _scale(x, factor, start, stop):
        for i in range(start, stop):
            x[i] *= factor

    @jit
    def _scale_all(parts, x, factor):
        in_parts(_scale, parts, x.size, (x, factor))

    _scale_all(parts_for(x.size), x, factor)

Numba's `prange` makes a function of the loop's body, and types and optimises it several times over; here the kernel is
compiled once. One part is a plain call.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from . import pool

__all__ = ["address_of", "in_parts"]

pool.install()

_INT, _POINTER = ir.IntType(64), ir.IntType(8).as_pointer()
_BODY = ir.FunctionType(ir.VoidType(), [_POINTER.as_pointer(), _INT.as_pointer(), _INT.as_pointer(), _POINTER])


def address_of(kernel, argument_types) -> int:
    """Where the machine code of a kernel for these types is, compiled if need be."""
    kernel.compile(argument_types)
    compiled = kernel.overloads[argument_types]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@intrinsic
def in_parts(typingctx, kernel, parts, n, arguments):
    """Calls kernel(*arguments, start, stop) for `parts` nearly equal ranges of 0 ... n, empty ones among them.

    The parts run in any order, several at a time. Of a kernel that returns an int64, a row that it can't take or -1, it
    returns the least that is not negative, or -1. RuntimeError if a part raised.
    """
    argument_types = (*arguments.types, types.int64, types.int64)
    call = kernel.get_call_type(typingctx, argument_types, {})
    returns = call.return_type == types.int64
    if not returns and call.return_type != types.none:
        raise TypingError(f"a kernel run in parts returns nothing or an int64, not {call.return_type}")

    def codegen(context, builder, signature, values):
        _, parts, n, arguments = values
        parts = context.cast(builder, parts, signature.args[1], types.int64)
        n = context.cast(builder, n, signature.args[2], types.int64)
        lent = _lend(context, builder, arguments)
        record = cgutils.pack_struct(builder, [lent, parts, n, _INT(0), _INT(-1)])
        data = cgutils.alloca_once_value(builder, record)
        body = ir.Function(builder.module, _BODY, builder.module.get_unique_name("parts"))
        body.linkage = "internal"
        _call_parts(context, ir.IRBuilder(body.append_basic_block()), body.args, data.type)
        threads = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INT, []), "get_num_threads")
        launch_type = ir.FunctionType(ir.VoidType(), [_POINTER, _INT, _POINTER, _INT])
        launch = cgutils.get_or_insert_function(builder.module, launch_type, "minilm_share")
        function, record = (builder.bitcast(pointer, _POINTER) for pointer in (body, data))
        builder.call(launch, [function, parts, record, builder.call(threads, [])])
        failed = builder.load(cgutils.gep_inbounds(builder, data, 0, 3))
        with cgutils.if_unlikely(builder, builder.icmp_signed("!=", failed, _INT(0))):
            context.call_conv.return_user_exc(builder, RuntimeError, ("a kernel raised in one of its parts",))
        return builder.load(cgutils.gep_inbounds(builder, data, 0, 4)) if returns else context.get_dummy_value()

    def _lend(context, builder, values):
        """The arguments with arrays that nobody counts: else each `x[row]` of a part would add one to a counter that
        all threads share, and subtract it again, which takes longer than the row."""
        for i, given in enumerate(arguments.types):
            if isinstance(given, types.Array):
                array = context.make_array(given)(context, builder, builder.extract_value(values, i))
                array.meminfo = cgutils.get_null_value(array.meminfo.type)
                values = builder.insert_value(values, array._getvalue(), i)
        return values

    def _call_parts(context, builder, body_arguments, data_type):
        first, count, _, data = body_arguments
        data = builder.bitcast(data, data_type)
        arguments, parts, n = (builder.load(cgutils.gep_inbounds(builder, data, 0, i)) for i in range(3))
        values = [
            context.cast(builder, builder.extract_value(arguments, i), given, wanted)
            for i, (given, wanted) in enumerate(zip(argument_types[:-2], call.args))
        ]
        compiled = kernel.dispatcher.overloads[call.args]
        context.active_code_library.add_linking_library(compiled.library)
        function = context.declare_function(builder.module, compiled.fndesc)
        number = builder.ptrtoint(builder.load(first), _INT)
        with cgutils.for_range(builder, builder.load(count)) as loop:
            part = builder.add(number, loop.index)
            start = builder.sdiv(builder.mul(part, n), parts)
            stop = builder.sdiv(builder.mul(builder.add(part, _INT(1)), n), parts)
            status, result = context.call_conv.call_function(
                builder, function, call.return_type, call.args, [*values, start, stop]
            )
            with cgutils.if_unlikely(builder, status.is_error):
                builder.store(_INT(1), cgutils.gep_inbounds(builder, data, 0, 3))
            if returns:  # as an unsigned number -1 is the largest
                builder.atomic_rmw("umin", cgutils.gep_inbounds(builder, data, 0, 4), result, "monotonic")
        builder.ret_void()

    return (types.int64 if returns else types.void)(kernel, parts, n, arguments), codegen
