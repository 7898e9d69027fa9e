"""Step 6, registers: the vectors are written by hand, and the sums of a whole tile of 6 x 16 stay in them.

What changed: LLVM makes vectors of one loop; the best tile takes two, 6 rows by 2 vectors of eight columns, under a
loop over what is summed. `simd.py` has the vectors as values, so here it is: twelve sums, two vectors of the right
operand and two numbers of the left one fill the sixteen registers. No sum goes across lanes, and twelve multiply-adds
cost eight loads. The keys are packed as columns for it; the values lie right as they are. One function does both
products.

What limits it: little. What is left is the exponentials, packing the keys anew for each block of queries, and threads
that wait for the last one. The product kernel, `../forward.py`, is the seventh step: this same tile, the softmax of
several rows at once, blocks handed out one by one, the next keys asked for ahead of time, and every setting.
"""

from __future__ import annotations

import math

import numpy as np

from ...jit import jit
from ...simd import (
    LANES,
    add,
    broadcast,
    exp2,
    first_lanes,
    fma,
    load,
    max_lanes,
    maximum,
    multiply,
    splat,
    store,
    subtract,
    sum_lanes,
    zeros,
)
from .common import launch, step

ROWS, COLUMNS = 6, 2 * LANES  # of a tile
QUERIES = 32 * ROWS
KEYS = 6 * COLUMNS
ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-math.inf)
LOG2_E, LN_2 = np.float32(math.log2(math.e)), np.float32(math.log(2))


@step("step6_registers")
def attention(q, k, v, causal, scale):
    N, G, T, _ = q.shape
    return launch(_attend, N * G * -(-T // QUERIES), q, k, v, causal, scale)


@jit
def _attend(task, q, k, v, causal, scale, out, logsumexp):
    """One block of queries, `start` to `stop` - 1, of head g among those that share the keys n."""
    (_, G, T, D), S = q.shape, k.shape[2]
    blocks = (T + QUERIES - 1) // QUERIES
    n, g, start = task // (G * blocks), task // blocks % G, task % blocks * QUERIES
    stop = min(start + QUERIES, T)
    width = (D + COLUMNS - 1) // COLUMNS * COLUMNS
    queries = np.zeros((QUERIES, D), np.float32)  # for scores to the base 2, and padded with zeros to whole tiles
    for t in range(start, stop):
        for d in range(D):
            queries[t - start, d] = q[n, g, t, d] * (scale * LOG2_E)
    columns = np.zeros((D, KEYS), np.float32)
    values = np.zeros((KEYS, width), np.float32)
    weights = np.empty((ROWS, KEYS), np.float32)
    sums = np.zeros((QUERIES, width), np.float32)
    totals = np.zeros(QUERIES, np.float32)
    largest = np.full(QUERIES, MINUS_INFINITY)
    n_keys = S - T + stop if causal else S
    for first in range(0, n_keys, KEYS):
        for j in range(min(KEYS, n_keys - first)):  # past these is what was there before: it gets no weight
            for d in range(D):
                columns[d, j] = k[n, 0, first + j, d]
                values[j, d] = v[n, 0, first + j, d]
        for i in range(0, stop - start, ROWS):
            # What the last of the six queries sees; the others see up to five keys less.
            seen = min(KEYS, n_keys - first, S - T + start + i + ROWS - first if causal else S)
            if seen > 0:
                n_columns = (seen + COLUMNS - 1) // COLUMNS * COLUMNS
                _multiply(weights, 0, KEYS, queries, i * D, D, columns, KEYS, D, n_columns, False)
                for r in range(ROWS):
                    sees = min(seen, S - T + start + i + r + 1 - first) if causal else seen
                    shrink = _softmax(weights, r * KEYS, n_columns, sees, largest, totals, i + r)
                    for d in range((i + r) * width, (i + r + 1) * width, LANES):
                        store(sums, d, multiply(load(sums, d), splat(shrink)))
                _multiply(sums, i * width, width, weights, 0, KEYS, values, width, seen, width, True)
    for t in range(start, stop):
        share = ONE / totals[t - start]
        for d in range(D):
            out[n, g, t, d] = sums[t - start, d] * share
        logsumexp[n, g, t] = largest[t - start] * LN_2 + np.float32(math.log(totals[t - start]))


@jit(inline=True)
def _softmax(scores, row, n_columns, sees, largest, totals, i):
    """`online_softmax` of step 3, to the base 2, for the row of scores at offset `row`."""
    highest = splat(largest[i])
    for j in range(0, n_columns, LANES):
        kept = first_lanes(load(scores, row + j), sees - j, MINUS_INFINITY)
        store(scores, row + j, kept)
        highest = maximum(kept, highest)
    new = max_lanes(highest)
    shrink = max_lanes(exp2(splat(largest[i] - new)))
    total = zeros()
    for j in range(0, n_columns, LANES):
        weight = exp2(subtract(load(scores, row + j), splat(new)))
        store(scores, row + j, weight)
        total = add(total, weight)
    largest[i], totals[i] = new, totals[i] * shrink + sum_lanes(total)
    return shrink


@jit
def _multiply(c, c0, c_step, a, a0, a_step, b, b_step, inner, columns, accumulate):
    """c[r, j] = sum over k < inner of a[r, k] b[k, j], added to what is there if `accumulate`; ROWS x `columns` of it.

    c0 and a0 are the offsets of the first elements, each `_step` the distance from a row to the next.
    """
    c1, c2, c3, c4, c5 = c0 + c_step, c0 + 2 * c_step, c0 + 3 * c_step, c0 + 4 * c_step, c0 + 5 * c_step
    a1, a2, a3, a4, a5 = a0 + a_step, a0 + 2 * a_step, a0 + 3 * a_step, a0 + 4 * a_step, a0 + 5 * a_step
    for j in range(0, columns, COLUMNS):
        x0 = x1 = x2 = x3 = x4 = x5 = y0 = y1 = y2 = y3 = y4 = y5 = zeros()
        if accumulate:
            x0, x1, x2 = load(c, c0 + j), load(c, c1 + j), load(c, c2 + j)
            x3, x4, x5 = load(c, c3 + j), load(c, c4 + j), load(c, c5 + j)
            y0, y1, y2 = load(c, c0 + j + LANES), load(c, c1 + j + LANES), load(c, c2 + j + LANES)
            y3, y4, y5 = load(c, c3 + j + LANES), load(c, c4 + j + LANES), load(c, c5 + j + LANES)
        for k in range(inner):
            x, y = load(b, k * b_step + j), load(b, k * b_step + j + LANES)
            # Two numbers of `a` at a time: with x and y and the twelve sums, there are no registers for more.
            r0, r1 = broadcast(a, a0 + k), broadcast(a, a1 + k)
            x0, y0, x1, y1 = fma(r0, x, x0), fma(r0, y, y0), fma(r1, x, x1), fma(r1, y, y1)
            r2, r3 = broadcast(a, a2 + k), broadcast(a, a3 + k)
            x2, y2, x3, y3 = fma(r2, x, x2), fma(r2, y, y2), fma(r3, x, x3), fma(r3, y, y3)
            r4, r5 = broadcast(a, a4 + k), broadcast(a, a5 + k)
            x4, y4, x5, y5 = fma(r4, x, x4), fma(r4, y, y4), fma(r5, x, x5), fma(r5, y, y5)
        store(c, c0 + j, x0), store(c, c1 + j, x1), store(c, c2 + j, x2)
        store(c, c3 + j, x3), store(c, c4 + j, x4), store(c, c5 + j, x5)
        store(c, c0 + j + LANES, y0), store(c, c1 + j + LANES, y1), store(c, c2 + j + LANES, y2)
        store(c, c3 + j + LANES, y3), store(c, c4 + j + LANES, y4), store(c, c5 + j + LANES, y5)
