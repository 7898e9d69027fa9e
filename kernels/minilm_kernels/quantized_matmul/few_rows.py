"""A few rows of x: each block of the weight is unpacked in registers, once for four of them."""

from __future__ import annotations

import numpy as np

from ..block_formats import BLOCK, BLOCK_BYTES
from ..dequantize.cpu import q4_0, q4_1, q8_0
from ..jit import jit
from ..launch import in_parts
from ..simd import LANES, fma, load, sum_lanes, zeros

__all__ = ["ROWS", "few_rows", "in_tiles"]

ROWS = 4  # of x, times two of the weight: eight sums in registers, as many as hide a multiply-add's latency

_Q8_0_BYTES, _Q4_0_BYTES, _Q4_1_BYTES = BLOCK_BYTES["Q8_0"], BLOCK_BYTES["Q4_0"], BLOCK_BYTES["Q4_1"]


def in_tiles(x):
    """The (M, K) rows four by four, zeros after the last, in the order in which they are read: (tiles, K / 8, 4, 8)."""
    M, K = x.shape
    tiles = np.zeros((-(-M // ROWS), K // LANES, ROWS, LANES), np.float32)
    for row in range(M):
        tiles[row // ROWS, :, row % ROWS] = x[row].reshape(-1, LANES)
    return tiles


@jit(inline=True)
def _step(tiles, i, v, w, v0, v1, v2, v3, w0, w1, w2, w3):
    """Adds eight numbers of two rows of the weight times those of four rows of x."""
    x0, x1, x2, x3 = load(tiles, i), load(tiles, i + LANES), load(tiles, i + 2 * LANES), load(tiles, i + 3 * LANES)
    v0, v1, v2, v3 = fma(v, x0, v0), fma(v, x1, v1), fma(v, x2, v2), fma(v, x3, v3)
    return v0, v1, v2, v3, fma(w, x0, w0), fma(w, x1, w1), fma(w, x2, w2), fma(w, x3, w3)


@jit(inline=True)
def _rows(unpack, size, halves, blocks, tiles, y, start, stop):
    """y[:, n] for two n at a time; past the end, the last one over again."""
    row, last = blocks.shape[1], len(blocks) - 1
    length = tiles.shape[1] * LANES
    for n in range(start * 2, min(stop * 2, len(blocks)), 2):
        m = min(n + 1, last)
        for tile in range(len(tiles)):
            v0 = v1 = v2 = v3 = w0 = w1 = w2 = w3 = zeros()
            v_at, w_at, i = n * row, m * row, tile * length * ROWS
            for _ in range(length // BLOCK):
                va, vb, vc, vd = unpack(halves, blocks, v_at)
                wa, wb, wc, wd = unpack(halves, blocks, w_at)
                v0, v1, v2, v3, w0, w1, w2, w3 = _step(tiles, i, va, wa, v0, v1, v2, v3, w0, w1, w2, w3)
                v0, v1, v2, v3, w0, w1, w2, w3 = _step(tiles, i + 32, vb, wb, v0, v1, v2, v3, w0, w1, w2, w3)
                v0, v1, v2, v3, w0, w1, w2, w3 = _step(tiles, i + 64, vc, wc, v0, v1, v2, v3, w0, w1, w2, w3)
                v0, v1, v2, v3, w0, w1, w2, w3 = _step(tiles, i + 96, vd, wd, v0, v1, v2, v3, w0, w1, w2, w3)
                v_at, w_at, i = v_at + size, w_at + size, i + BLOCK * ROWS
            first = tile * ROWS
            left = len(y) - first
            y[first, n], y[first, m] = sum_lanes(v0), sum_lanes(w0)
            if left > 1:
                y[first + 1, n], y[first + 1, m] = sum_lanes(v1), sum_lanes(w1)
            if left > 2:
                y[first + 2, n], y[first + 2, m] = sum_lanes(v2), sum_lanes(w2)
            if left > 3:
                y[first + 3, n], y[first + 3, m] = sum_lanes(v3), sum_lanes(w3)


@jit
def _part(format, halves, blocks, tiles, y, start, stop):
    if format == 0:
        _rows(q8_0, _Q8_0_BYTES, halves, blocks, tiles, y, start, stop)
    elif format == 1:
        _rows(q4_0, _Q4_0_BYTES, halves, blocks, tiles, y, start, stop)
    else:
        _rows(q4_1, _Q4_1_BYTES, halves, blocks, tiles, y, start, stop)


@jit
def few_rows(parts, format, halves, blocks, tiles, y):
    """y (M, N) = x @ w.T for the rows of x `in_tiles`."""
    in_parts(_part, parts, (len(blocks) + 1) // 2, (format, halves, blocks, tiles, y))
