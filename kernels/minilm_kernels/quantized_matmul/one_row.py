"""One row of x: the blocks are read once and become floats in registers, four rows of the weight at a time.

Per block of 32 a few integers have to be widened and converted, eight at a time, before the four multiply-adds. The
scale is applied to the block's sum, and the 8 that Q4_0 subtracts from each integer once for the block:
sum of x (q - 8) is sum of x q, less 8 sum of x. With four rows, x and its sums are loaded once for four blocks; but
four short streams are too many for a processor to foresee, so the blocks of the next four rows are asked for ahead.
"""

from __future__ import annotations

import numpy as np

from ..block_formats import BLOCK, BLOCK_BYTES
from ..dequantize.cpu import half
from ..dequantize.lanes import load_high_nibbles, load_int8, load_low_nibbles, prefetch
from ..jit import jit
from ..launch import in_parts
from ..simd import LANES, add, fma, load, multiply, splat, store, sum_lanes, zeros

__all__ = ["one_row"]

_Q8_0_BYTES, _Q4_0_BYTES, _Q4_1_BYTES = BLOCK_BYTES["Q8_0"], BLOCK_BYTES["Q4_0"], BLOCK_BYTES["Q4_1"]
_MINUS_EIGHT = np.float32(-8)


# Each adds the products of the block at byte `at` with x0 ... x3 to `total`; `x_sum` is x0 + x1 + x2 + x3.


@jit(inline=True)
def _q8_0(halves, blocks, at, x0, x1, x2, x3, x_sum, total):
    dot = multiply(load_int8(blocks, at + 2), x0)
    dot = fma(load_int8(blocks, at + 10), x1, dot)
    dot = fma(load_int8(blocks, at + 18), x2, dot)
    dot = fma(load_int8(blocks, at + 26), x3, dot)
    return fma(half(halves, blocks, at), dot, total)


@jit(inline=True)
def _nibbles(blocks, at, x0, x1, x2, x3, dot):
    dot = fma(load_low_nibbles(blocks, at), x0, dot)
    dot = fma(load_low_nibbles(blocks, at + 8), x1, dot)
    dot = fma(load_high_nibbles(blocks, at), x2, dot)
    return fma(load_high_nibbles(blocks, at + 8), x3, dot)


@jit(inline=True)
def _q4_0(halves, blocks, at, x0, x1, x2, x3, x_sum, total):
    dot = _nibbles(blocks, at + 2, x0, x1, x2, x3, multiply(splat(_MINUS_EIGHT), x_sum))
    return fma(half(halves, blocks, at), dot, total)


@jit(inline=True)
def _q4_1(halves, blocks, at, x0, x1, x2, x3, x_sum, total):
    dot = _nibbles(blocks, at + 4, x0, x1, x2, x3, zeros())
    return fma(half(halves, blocks, at + 2), x_sum, fma(half(halves, blocks, at), dot, total))


@jit(inline=True)
def _rows(block, size, halves, blocks, x, sums, y, start, stop):
    """y[n] for four n at a time; past the end, the last one over again."""
    row, last = blocks.shape[1], len(blocks) - 1
    ahead = 4 * row
    for n in range(start * 4, min(stop * 4, len(blocks)), 4):
        n1, n2, n3 = min(n + 1, last), min(n + 2, last), min(n + 3, last)
        at0, at1, at2, at3 = n * row, n1 * row, n2 * row, n3 * row
        y0 = y1 = y2 = y3 = zeros()
        for k in range(0, x.size, BLOCK):
            x0, x1, x2, x3 = load(x, k), load(x, k + LANES), load(x, k + 2 * LANES), load(x, k + 3 * LANES)
            x_sum = load(sums, k // 4)
            prefetch(blocks, at0 + ahead), prefetch(blocks, at1 + ahead)
            prefetch(blocks, at2 + ahead), prefetch(blocks, at3 + ahead)
            y0 = block(halves, blocks, at0, x0, x1, x2, x3, x_sum, y0)
            y1 = block(halves, blocks, at1, x0, x1, x2, x3, x_sum, y1)
            y2 = block(halves, blocks, at2, x0, x1, x2, x3, x_sum, y2)
            y3 = block(halves, blocks, at3, x0, x1, x2, x3, x_sum, y3)
            at0, at1, at2, at3 = at0 + size, at1 + size, at2 + size, at3 + size
        y[n], y[n1], y[n2], y[n3] = sum_lanes(y0), sum_lanes(y1), sum_lanes(y2), sum_lanes(y3)


@jit
def _part(format, halves, blocks, x, sums, y, start, stop):
    if format == 0:
        _rows(_q8_0, _Q8_0_BYTES, halves, blocks, x, sums, y, start, stop)
    elif format == 1:
        _rows(_q4_0, _Q4_0_BYTES, halves, blocks, x, sums, y, start, stop)
    else:
        _rows(_q4_1, _Q4_1_BYTES, halves, blocks, x, sums, y, start, stop)


@jit
def one_row(parts, format, halves, blocks, x, sums, y):
    """y (N,) = w @ x for x (K,); `sums` (K / 4,) is scratch."""
    for k in range(0, x.size, BLOCK):
        low, high = add(load(x, k), load(x, k + LANES)), add(load(x, k + 2 * LANES), load(x, k + 3 * LANES))
        store(sums, k // 4, add(low, high))
    in_parts(_part, parts, (len(blocks) + 3) // 4, (format, halves, blocks, x, sums, y))
