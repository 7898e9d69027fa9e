"""The product of two small tiles, held in vector registers: what matrix products and attention are made of.

    multiply_tile(c, at_c, c_row, a, at_a, a_row, a_inner, b, at_b, b_inner, depth, accumulate)

makes ROWS x COLUMNS numbers c[i, j] = sum over k < depth of a[i, k] b[k, j], added to what is there if `accumulate`.
`at_` is the offset of a tile's first element in its float32 array, `_row` the step from row to row and `_inner` that
from k to k + 1; the COLUMNS numbers of a row of b and of c lie next to each other.

Twelve sums stay in vector registers while k runs, and a step costs two vector loads and six broadcasts for twelve
multiply-adds: what a core can do at once. It is written as LLVM's code and put into the loop that asks for it. The same
loop as a function of its own, compiled by Numba, has as many multiply-adds and a few more instructions around them;
while other tenants kept the processor busy, those made it a quarter slower.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .vector_ir import (
    FLAGS,
    LANES,
    VECTOR,
    address,
    fused_multiply_add,
    is_float32,
    load_vector,
    splat_scalar,
    store_vector,
)

__all__ = ["COLUMNS", "ROWS", "multiply_tile"]

ROWS = 6
VECTORS = 2
COLUMNS = VECTORS * LANES

_INT = ir.IntType(64)


@intrinsic
def multiply_tile(typingctx, c, at_c, c_row, a, at_a, a_row, a_inner, b, at_b, b_inner, depth, accumulate):
    """See above."""

    def codegen(context, builder, signature, args):
        def pointer(i):
            return address(context, builder, signature, args[i : i + 2], i)

        _, _, c_row, _, _, a_row, a_inner, _, _, b_inner, depth, accumulate = args
        first_c, first_a, first_b = pointer(0), pointer(3), pointer(7)
        a_rows = [builder.gep(first_a, [builder.mul(a_row, _INT(r))]) for r in range(ROWS)]
        c_rows = [builder.gep(first_c, [builder.mul(c_row, _INT(r))]) for r in range(ROWS)]
        targets = [builder.gep(row, [_INT(LANES * v)]) for row in c_rows for v in range(VECTORS)]

        before = builder.block
        body, summed, add, done = (builder.append_basic_block(name) for name in ("body", "summed", "add", "done"))
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        builder.cbranch(builder.icmp_signed(">", depth, _INT(0)), body, summed)

        builder.position_at_end(body)
        k = _phi(builder, _INT, (_INT(0), before))
        sums = [_phi(builder, VECTOR, (zero, before)) for _ in targets]
        b_row = builder.gep(first_b, [builder.mul(k, b_inner)])
        offset = builder.mul(k, a_inner)
        columns = [load_vector(builder, builder.gep(b_row, [_INT(LANES * v)])) for v in range(VECTORS)]
        grown = []
        for r in range(ROWS):
            factor = splat_scalar(builder, builder.load(builder.gep(a_rows[r], [offset])))
            for v in range(VECTORS):
                grown.append(fused_multiply_add(builder, factor, columns[v], sums[VECTORS * r + v]))
        following = builder.add(k, _INT(1))
        k.add_incoming(following, body)
        for phi, x in zip(sums, grown):
            phi.add_incoming(x, body)
        builder.cbranch(builder.icmp_signed("<", following, depth), body, summed)

        # What is there is added last: a long sum, made of many tiles', so loses fewer digits than one term by term.
        builder.position_at_end(summed)
        products = [_phi(builder, VECTOR, (zero, before), (x, body)) for x in grown]
        builder.cbranch(builder.icmp_unsigned("!=", accumulate, accumulate.type(0)), add, done)

        builder.position_at_end(add)
        totals = [
            builder.fadd(load_vector(builder, target), product, flags=FLAGS)
            for target, product in zip(targets, products)
        ]
        builder.branch(done)

        builder.position_at_end(done)
        results = [_phi(builder, VECTOR, (x, summed), (total, add)) for x, total in zip(products, totals)]
        for target, result in zip(targets, results):
            store_vector(builder, result, target)
        return context.get_dummy_value()

    if not all(is_float32(array) for array in (a, b, c)):
        return None
    return types.void(c, *[types.intp] * 2, a, *[types.intp] * 3, b, *[types.intp] * 3, types.boolean), codegen


def _phi(builder, of_type, *incoming):
    phi = builder.phi(of_type)
    for value, block in incoming:
        phi.add_incoming(value, block)
    return phi
