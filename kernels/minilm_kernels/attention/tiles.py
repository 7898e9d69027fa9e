"""What the attention kernels are made of: packing rows into scratch, and the product of two packed tiles.

A thread's scratch is one float32 array, and a packed tile is the offset of its first element in it. Tiles are padded,
so that no product has tails: rows to a multiple of ROWS, columns to a multiple of COLUMNS. What lies in the padding
never gets into a result.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from ..jit import jit, only_for
from ..simd import LANES, load, multiply, prefetch, splat, store, transpose
from ..tile_product import COLUMNS, ROWS, multiply_tile

__all__ = [
    "COLUMNS",
    "LN_2",
    "LOG2_E",
    "MINUS_INFINITY",
    "ONE",
    "ROWS",
    "SCRATCH",
    "ZERO",
    "fill",
    "multiply_rows",
    "pack_panels",
    "pack_rows",
    "prefetch_rows",
    "round_up",
    "unpack_rows",
]

# One compiled kernel takes arrays of any strides, writeable or not.
READ = types.Array(types.float32, 4, "A", readonly=True)
WRITE = types.Array(types.float32, 4, "A")
SCRATCH = types.Array(types.float32, 1, "C")

LOG2_E = np.float32(math.log2(math.e))
LN_2 = np.float32(math.log(2))
MINUS_INFINITY = np.float32(-math.inf)
ZERO, ONE = np.float32(0), np.float32(1)


@jit(inline=True)
def round_up(n, multiple):
    return (n + multiple - 1) // multiple * multiple


@jit(inline=True)
def fill(scratch, start, stop, value):
    """Sets scratch[start:stop], a multiple of LANES long, to `value`."""
    for i in range(start, stop, LANES):
        store(scratch, i, splat(value))


@only_for(SCRATCH, types.int64, types.int64, READ, *[types.int64] * 4, types.float32)
@jit
def pack_rows(scratch, rows, step, array, b, h, t, count, factor):
    """Copies factor * array[b, h, t : t + count] to rows `step` apart, the first at offset `rows`."""
    D = array.shape[3]
    whole = D // LANES * LANES
    source_step = array.strides[2] // array.itemsize
    source = (b * array.strides[0] + h * array.strides[1]) // array.itemsize + t * source_step
    for i in range(count):
        for d in range(0, whole, LANES):
            store(scratch, rows + d, multiply(load(array, source + d), splat(factor)))
        for d in range(whole, D):
            scratch[rows + d] = array[b, h, t + i, d] * factor
        rows += step
        source += source_step


@only_for(WRITE, *[types.int64] * 4, SCRATCH, types.int64, types.int64, types.float32)
@jit
def unpack_rows(array, b, h, t, count, scratch, rows, step, factor):
    """Copies factor * the `count` rows at offset `rows`, `step` apart, to array[b, h, t : t + count]."""
    D = array.shape[3]
    whole = D // LANES * LANES
    target_step = array.strides[2] // array.itemsize
    target = (b * array.strides[0] + h * array.strides[1]) // array.itemsize + t * target_step
    for i in range(count):
        for d in range(0, whole, LANES):
            store(array, target + d, multiply(load(scratch, rows + d), splat(factor)))
        for d in range(whole, D):
            array[b, h, t + i, d] = scratch[rows + d] * factor
        rows += step
        target += target_step


@only_for(READ, *[types.int64] * 4)
@jit
def prefetch_rows(array, b, h, t, count):
    """Asks for array[b, h, t : t + count] to be brought into the cache."""
    for i in range(t, t + count):
        row = (b * array.strides[0] + h * array.strides[1] + i * array.strides[2]) // array.itemsize
        for d in range(0, array.shape[3], COLUMNS):
            prefetch(array, row + d)


@jit(inline=True)
def pack_panels(scratch, panels, rows, step, count, D):
    """Transposes `count` packed rows, `step` apart, into panels of COLUMNS rows: [panel, column, row in the panel]."""
    for i in range(0, count, LANES):
        panel = panels + i // COLUMNS * COLUMNS * step + i % COLUMNS
        for d in range(0, D, LANES):
            transpose(scratch, rows + i * step + d, step, panel + d * COLUMNS, COLUMNS)


@jit(inline=True)
def multiply_rows(scratch, c, c_row, a, a_row, a_inner, b, b_inner, b_panel, columns, inner, accumulate):
    """c[i, j] = sum over k < inner of a[i, k] b[k, j], added to what is there if `accumulate`; ROWS x `columns` of it.

    c, a and b are offsets; `_row` is the step from row to row, `_inner` the step from k to k + 1 and `_panel` the step
    from COLUMNS columns to the next ones; the columns of a panel are adjacent, and so are the panels of c.
    """
    for _ in range(0, columns, COLUMNS):
        multiply_tile(scratch, c, c_row, scratch, a, a_row, a_inner, scratch, b, b_inner, inner, accumulate)
        c += COLUMNS
        b += b_panel
