"""One row of x: the blocks are read once and multiplied as the integers that they are, four rows at a time.

Turning a block's 32 integers into floats takes longer than reading them. So x is written in integers as well: with s
the power of two that keeps a block of it below 2^14,

    x[k] = s (high[k] + 2^-15 low[k])        high and low in 16 bits

29 bits, more than a float32 has. A processor multiplies sixteen pairs of 16 bits in one instruction, and the sums of
four products that become floats are below 2^24 and so exact. What differs from a product in float32 is the order of
its sums alone. The scale of a block is applied to its sum, and what Q4_0 and Q4_1 add to each integer once for the
block, to the sum of x. With four rows, x is loaded once for four blocks; but four short streams are too many for a
processor to foresee, so the blocks of the next four rows are asked for ahead.
"""

from __future__ import annotations

import math

import numpy as np

from ..block_formats import BLOCK, BLOCK_BYTES
from ..dequantize.cpu import half
from ..dequantize.lanes import dot_int8, dot_nibbles, half_bits, prefetch
from ..jit import jit
from ..launch import in_parts
from ..simd import LANES, add, fma, load, max_lanes, splat, store, subtract, sum_lanes, zeros

__all__ = ["in_digits", "one_row", "rows_of_blocks"]

_Q8_0_BYTES, _Q4_0_BYTES, _Q4_1_BYTES = BLOCK_BYTES["Q8_0"], BLOCK_BYTES["Q4_0"], BLOCK_BYTES["Q4_1"]
_MINUS_EIGHT = np.float32(-8)
_LINE, _AHEAD = 64, 4096  # bytes: of a cache line; how long before their use blocks are asked for, in memory's order
_SMALL = np.float32(1e-30)  # of a block's largest; below it digits are lost that no other number would leave seen


# Each adds the products of the block at byte `at` with block number k / 32 of x to `total`.


@jit(inline=True)
def _q8_0(halves, blocks, at, digits, scales, sums, k, total):
    dot = fma(_low(), dot_int8(blocks, at + 2, digits, 2 * k + BLOCK), dot_int8(blocks, at + 2, digits, 2 * k))
    return fma(splat(halves[half_bits(blocks, at)] * scales[k // BLOCK]), dot, total)


@jit(inline=True)
def _nibbles(d, blocks, at, digits, k, total):
    dot = fma(_low(), dot_nibbles(blocks, at, digits, 2 * k + BLOCK), dot_nibbles(blocks, at, digits, 2 * k))
    return fma(splat(d), dot, total)


@jit(inline=True)
def _q4_0(halves, blocks, at, digits, scales, sums, k, total):
    d = halves[half_bits(blocks, at)]
    total = fma(splat(d * _MINUS_EIGHT), load(sums, k // 4), total)
    return _nibbles(d * scales[k // BLOCK], blocks, at + 2, digits, k, total)


@jit(inline=True)
def _q4_1(halves, blocks, at, digits, scales, sums, k, total):
    total = fma(half(halves, blocks, at + 2), load(sums, k // 4), total)
    return _nibbles(halves[half_bits(blocks, at)] * scales[k // BLOCK], blocks, at + 4, digits, k, total)


@jit(inline=True)
def _low():
    return splat(np.float32(2.0**-15))


@jit(inline=True)
def _rows(block, size, halves, blocks, row, digits, scales, sums, y, first, start, stop):
    """y[first + n] for rows n from `start` to `stop`, of `row` bytes, four at a time; past the end, the last again."""
    last = stop - 1
    for n in range(start, stop, 4):
        ahead = n * row + _AHEAD
        n1, n2, n3 = min(n + 1, last), min(n + 2, last), min(n + 3, last)
        at0, at1, at2, at3 = n * row, n1 * row, n2 * row, n3 * row
        y0 = y1 = y2 = y3 = zeros()
        for k in range(0, scales.size * BLOCK, BLOCK):
            for line in range(0, 4 * size, _LINE):
                prefetch(blocks, ahead + line)
            ahead += 4 * size
            y0 = block(halves, blocks, at0, digits, scales, sums, k, y0)
            y1 = block(halves, blocks, at1, digits, scales, sums, k, y1)
            y2 = block(halves, blocks, at2, digits, scales, sums, k, y2)
            y3 = block(halves, blocks, at3, digits, scales, sums, k, y3)
            at0, at1, at2, at3 = at0 + size, at1 + size, at2 + size, at3 + size
        y[first + n], y[first + n1] = sum_lanes(y0), sum_lanes(y1)
        y[first + n2], y[first + n3] = sum_lanes(y2), sum_lanes(y3)


@jit
def rows_of_blocks(format, halves, blocks, row, digits, scales, sums, y, first, start, stop):
    """y[first + n] = x times row n of the weight, n from `start` to `stop`; digits, scales and sums are x's."""
    if format == 0:
        _rows(_q8_0, _Q8_0_BYTES, halves, blocks, row, digits, scales, sums, y, first, start, stop)
    elif format == 1:
        _rows(_q4_0, _Q4_0_BYTES, halves, blocks, row, digits, scales, sums, y, first, start, stop)
    else:
        _rows(_q4_1, _Q4_1_BYTES, halves, blocks, row, digits, scales, sums, y, first, start, stop)


@jit
def in_digits(x, digits, scales, sums):
    """Writes x (K,) as integers: `digits` int16 (2 K,), high and low of a block in turn, and `scales` (K / 32,).

    `sums` (K / 4,) get eight numbers a block that add up to its sum.
    """
    for block in range(x.size // BLOCK):
        k = block * BLOCK
        low, high = add(load(x, k), load(x, k + LANES)), add(load(x, k + 2 * LANES), load(x, k + 3 * LANES))
        store(sums, k // 4, add(low, high))
        xs, highs, lows = x[k : k + BLOCK], digits[2 * k : 2 * k + BLOCK], digits[2 * k + BLOCK : 2 * k + 2 * BLOCK]
        largest = np.float32(0)
        for i in range(BLOCK):
            largest = max(largest, abs(xs[i]))
        finite = max_lanes(subtract(load(sums, k // 4), load(sums, k // 4))) == 0
        _, exponent = math.frexp(max(largest, _SMALL) if finite else _SMALL)
        scale = np.float32(math.ldexp(1.0, exponent - 14))
        inverse = np.float32(1) / scale if finite else np.float32(0)
        for i in range(BLOCK):
            scaled = xs[i] * inverse if finite else np.float32(0)
            nearest = np.rint(scaled)
            highs[i] = np.int16(nearest)
            lows[i] = np.int16((scaled - nearest) * np.float32(2.0**15))
        scales[block] = scale if finite else np.float32(np.nan)


@jit
def _part(format, halves, blocks, digits, scales, sums, y, start, stop):
    start, stop = start * 4, min(stop * 4, len(blocks))
    rows_of_blocks(format, halves, blocks, blocks.shape[1], digits, scales, sums, y, 0, start, stop)


@jit
def one_row(parts, format, halves, blocks, x, y):
    """y (N,) = w @ x for x (K,)."""
    digits, scales = np.empty(2 * x.size, np.int16), np.empty(x.size // BLOCK, np.float32)
    sums = np.empty(x.size // 4, np.float32)
    in_digits(x, digits, scales, sums)
    in_parts(_part, parts, (len(blocks) + 3) // 4, (format, halves, blocks, digits, scales, sums, y))
