"""Attention on the CPU, forward: tiles of scores and a running softmax; no T x S matrix is ever held."""

from __future__ import annotations

import math

import numpy as np

from ..jit import jit, prange
from ..simd import (
    LANES,
    add,
    broadcast,
    call_address,
    exp2,
    fetch_add,
    first_lanes,
    load,
    maximum,
    multiply,
    select_equal,
    splat,
    store,
    subtract,
    sum_lanes,
    transpose,
    zeros,
)
from .tiles import (
    COLUMNS,
    ROWS,
    fill,
    multiply_rows,
    pack_panels,
    pack_rows,
    prefetch_rows,
    round_up,
    unpack_rows,
)

__all__ = ["KEYS", "forward", "forward_parallel", "visible_keys"]

KEYS = 64  # Keys a block: their K and V stay in the first cache level while the rows of a task pass by.
LOG2_E = np.float32(math.log2(math.e))
LN_2 = np.float32(math.log(2))
MINUS_INFINITY = np.float32(-math.inf)
ZERO, ONE = np.float32(0), np.float32(1)


@jit(inline=True)
def visible_keys(t, T, S, length, causal):
    """How many keys, counted from the first, query t may see."""
    return max(0, min(length, S - T + t + 1)) if causal else length


@jit(inline=True)
def _softmax(scratch, scores, n_rows, width, limits, i, j, sums, maxima, block):
    """Turns `n_rows` rows of base-2 scores into weights exp2(score - maximum), zero from each row's limit on.

    Brings the rows' running sums (eight partial ones each) and maxima (one vector) up to date. `block` is room for
    8 x 8 numbers; on return its first row holds the factors by which what was accumulated so far has to shrink.
    """
    for row in range(n_rows):
        first = scores + row * KEYS
        limit = max(0, limits[i + row] - j)
        for column in range(limit // LANES * LANES, width, LANES):
            kept = first_lanes(load(scratch, first + column), limit - column, MINUS_INFINITY)
            store(scratch, first + column, kept)
        highest = load(scratch, first)
        for column in range(LANES, width, LANES):
            highest = maximum(load(scratch, first + column), highest)
        store(scratch, block + row * LANES, highest)
    # Lane r of each of the eight vectors belongs to row r: what is scalar for a row is done once for all rows.
    transpose(scratch, block, LANES, block, LANES)
    old = load(scratch, maxima)
    new = old
    for row in range(LANES):
        new = maximum(load(scratch, block + row * LANES), new)
    store(scratch, maxima, new)
    base = select_equal(new, splat(MINUS_INFINITY), zeros(), new)
    store(scratch, block, exp2(subtract(old, base)))
    store(scratch, block + LANES, base)
    for row in range(n_rows):
        first = scores + row * KEYS
        base = broadcast(scratch, block + LANES + row)
        total = multiply(load(scratch, sums + row * LANES), broadcast(scratch, block + row))
        for column in range(0, width, LANES):
            weights = exp2(subtract(load(scratch, first + column), base))
            total = add(total, weights)
            store(scratch, first + column, weights)
        store(scratch, sums + row * LANES, total)


@jit
def forward(q, k, v, lengths, causal, scale, chunk, task, out, logsumexp):
    """Works off the tasks that `task[0]` counts: each a chunk of query rows of all heads that share one key head.

    The rows of such heads lie one after another, head by head, so that a single query a head (decoding) still fills a
    tile. Keys are packed once a task. What a row's result is depends neither on the chunk nor on the thread.
    """
    H, T, D = q.shape[1], q.shape[2], q.shape[3]
    B, Hk, S = k.shape[0], k.shape[1], k.shape[2]
    group = H // Hk
    rows = group * T
    chunk = round_up(chunk, ROWS)
    n_tasks = (rows + chunk - 1) // chunk * B * Hk
    step = round_up(D, COLUMNS)
    queries = 0
    outputs = queries + chunk * step
    sums = outputs + chunk * step
    maxima = sums + chunk * LANES
    key_rows = maxima + chunk // ROWS * LANES
    key_panels = key_rows + KEYS * step
    values = key_panels + KEYS * step
    scores = values + KEYS * step
    block = scores + ROWS * KEYS
    scratch = np.empty(block + LANES * LANES, np.float32)
    limits = np.empty(chunk, np.int64)
    while True:
        index = fetch_add(task, 1)
        if index >= n_tasks:
            break
        # Later rows see more keys: the longest tasks come first, so that no thread is left with one at the end.
        start = (n_tasks - 1 - index) // (B * Hk) * chunk
        b, hk = index % (B * Hk) // Hk, index % Hk
        count = min(chunk, rows - start)
        fill(scratch, outputs, maxima, ZERO)
        fill(scratch, maxima, key_rows, MINUS_INFINITY)
        n_visible = 0
        for i in range(count):
            limits[i] = visible_keys((start + i) % T, T, S, lengths[b], causal)
            n_visible = max(n_visible, limits[i])
        i = 0
        while i < count:
            h, t = hk * group + (start + i) // T, (start + i) % T
            run = min(T - t, count - i)
            pack_rows(scratch, queries + i * step, step, q, b, h, t, run, scale * LOG2_E)
            i += run
        for j in range(0, n_visible, KEYS):
            n_keys = min(KEYS, n_visible - j)
            pack_rows(scratch, key_rows, step, k, b, hk, j, n_keys, ONE)
            pack_rows(scratch, values, step, v, b, hk, j, n_keys, ONE)
            pack_panels(scratch, key_panels, key_rows, step, n_keys, D)
            n_next = min(KEYS, n_visible - j - n_keys)
            prefetch_rows(k, b, hk, j + KEYS, n_next)
            prefetch_rows(v, b, hk, j + KEYS, n_next)
            for i in range(0, count, ROWS):
                n_rows = min(ROWS, count - i)
                n = 0
                for row in range(i, i + n_rows):
                    n = max(n, min(n_keys, limits[row] - j))
                if n == 0:
                    continue
                width, a, c = round_up(n, COLUMNS), queries + i * step, outputs + i * step
                multiply_rows(scratch, scores, KEYS, a, step, 1, key_panels, COLUMNS, COLUMNS * step, width, D, False)
                row_sums, row_maxima = sums + i * LANES, maxima + i // ROWS * LANES
                _softmax(scratch, scores, n_rows, width, limits, i, j, row_sums, row_maxima, block)
                for row in range(n_rows):
                    factor = broadcast(scratch, block + row)
                    for d in range(c + row * step, c + (row + 1) * step, LANES):
                        store(scratch, d, multiply(load(scratch, d), factor))
                multiply_rows(scratch, c, step, scores, KEYS, 1, values, step, COLUMNS, D, n, True)
        for i in range(count):
            total = sum_lanes(load(scratch, sums + i * LANES))
            largest = scratch[maxima + i // ROWS * LANES + i % ROWS]
            h, t = hk * group + (start + i) // T, (start + i) % T
            logsumexp[b, h, t] = largest * LN_2 + np.float32(math.log(total))
            inverse = splat(ZERO if total == ZERO else ONE / total)
            for d in range(outputs + i * step, outputs + (i + 1) * step, LANES):
                store(scratch, d, multiply(load(scratch, d), inverse))
        i = 0
        while i < count:
            h, t = hk * group + (start + i) // T, (start + i) % T
            run = min(T - t, count - i)
            unpack_rows(out, b, h, t, run, scratch, outputs + i * step, step, ONE)
            i += run


@jit(parallel=True)
def forward_parallel(n_threads, address, q, k, v, lengths, causal, scale, chunk, task, out, logsumexp):
    for _ in prange(n_threads):
        call_address(address, q, k, v, lengths, causal, scale, chunk, task, out, logsumexp)
