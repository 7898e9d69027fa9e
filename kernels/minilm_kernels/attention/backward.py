"""Attention on the CPU, backward: the weights are computed again, tile by tile, from q, k and logsumexp."""

from __future__ import annotations

import numpy as np

from ..jit import jit, prange
from ..simd import (
    LANES,
    broadcast,
    call_address,
    exp2,
    fetch_add,
    first_lanes,
    fma,
    load,
    multiply,
    store,
    subtract,
    sum_lanes,
    zeros,
)
from .forward import LN_2, LOG2_E, MINUS_INFINITY, ONE, ZERO, visible_keys
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

__all__ = ["backward", "backward_parallel"]

QUERIES = 48  # Queries a block, a multiple of ROWS.
KEYS = 48  # Keys a block, a multiple of ROWS, as which they are summed over, and of COLUMNS, as which scores are made.


@jit
def backward(g, q, k, v, lengths, causal, scale, task, out, logsumexp, dq, dk, dv):
    """Works off the tasks that `task[0]` counts: each is one key head with all the query heads that share it.

    One thread so owns all that is summed into, in a fixed order: the result does not depend on the threads.
    """
    H, T, D = q.shape[1], q.shape[2], q.shape[3]
    B, Hk, S = k.shape[0], k.shape[1], k.shape[2]
    group = H // Hk
    rows = group * T
    padded_rows = round_up(rows, ROWS * LANES)
    step = round_up(D, COLUMNS)
    queries = 0
    grads = queries + padded_rows * step
    d_queries = grads + padded_rows * step
    logsumexps = d_queries + padded_rows * step
    deltas = logsumexps + padded_rows
    key_rows = deltas + padded_rows
    key_panels = key_rows + KEYS * step
    value_rows = key_panels + KEYS * step
    value_panels = value_rows + KEYS * step
    d_keys = value_panels + KEYS * step
    d_values = d_keys + KEYS * step
    weights = d_values + KEYS * step
    d_scores = weights + QUERIES * KEYS
    scratch = np.empty(d_scores + QUERIES * KEYS, np.float32)
    limits = np.empty(padded_rows, np.int64)
    while True:
        index = fetch_add(task, 1)
        if index >= B * Hk:
            break
        b, hk = index // Hk, index % Hk
        n_visible = 0
        for i in range(rows):
            limits[i] = visible_keys(i % T, T, S, lengths[b], causal)
            n_visible = max(n_visible, limits[i])
            value = logsumexp[b, hk * group + i // T, i % T]
            scratch[logsumexps + i] = ZERO if value == MINUS_INFINITY else value * LOG2_E
        fill(scratch, d_queries, logsumexps, ZERO)
        for i in range(group):
            h, first = hk * group + i, i * T * step
            pack_rows(scratch, queries + first, step, q, b, h, 0, T, scale * LOG2_E)
            pack_rows(scratch, grads + first, step, g, b, h, 0, T, ONE)
            _pack_deltas(scratch, deltas + i * T, grads + first, step, out, b, h)
        for j in range(0, n_visible, KEYS):
            n_keys = min(KEYS, n_visible - j)
            pack_rows(scratch, key_rows, step, k, b, hk, j, n_keys, ONE)
            pack_rows(scratch, value_rows, step, v, b, hk, j, n_keys, ONE)
            pack_panels(scratch, key_panels, key_rows, step, n_keys, D)
            pack_panels(scratch, value_panels, value_rows, step, n_keys, D)
            n_next = min(KEYS, n_visible - j - n_keys)
            prefetch_rows(k, b, hk, j + KEYS, n_next)
            prefetch_rows(v, b, hk, j + KEYS, n_next)
            fill(scratch, d_keys, weights, ZERO)
            for start in range(0, rows, QUERIES):
                stop = min(start + QUERIES, rows)
                widest = 0
                for i in range(start, stop, ROWS):
                    n = 0
                    for row in range(i, min(i + ROWS, stop)):
                        n = max(n, min(n_keys, limits[row] - j))
                    widest = max(widest, n)
                    width, p, ds = round_up(n, COLUMNS), weights + (i - start) * KEYS, d_scores + (i - start) * KEYS
                    a, c, panel = queries + i * step, grads + i * step, COLUMNS * step
                    multiply_rows(scratch, p, KEYS, a, step, 1, key_panels, COLUMNS, panel, width, D, False)
                    multiply_rows(scratch, ds, KEYS, c, step, 1, value_panels, COLUMNS, panel, width, D, False)
                    for row in range(i, min(i + ROWS, stop)):
                        exponent, mean, limit = logsumexps + row, deltas + row, limits[row] - j
                        first = (row - i) * KEYS
                        _score_gradients(scratch, p + first, ds + first, width, limit, exponent, mean)
                    c = d_queries + i * step
                    multiply_rows(scratch, c, step, ds, KEYS, 1, key_rows, step, COLUMNS, D, n, True)
                first = start
                for column in range(0, widest, ROWS):
                    # Rows before the first that sees this column have nothing but zeros from here on.
                    while limits[first] - j <= column:
                        first += 1
                    a, n, i = (first - start) * KEYS + column, stop - first, first * step
                    c = d_values + column * step
                    multiply_rows(scratch, c, step, weights + a, 1, KEYS, grads + i, step, COLUMNS, D, n, True)
                    c = d_keys + column * step
                    multiply_rows(scratch, c, step, d_scores + a, 1, KEYS, queries + i, step, COLUMNS, D, n, True)
            # The packed queries carry scale * log2(e) already.
            unpack_rows(dk, b, hk, j, n_keys, scratch, d_keys, step, LN_2)
            unpack_rows(dv, b, hk, j, n_keys, scratch, d_values, step, ONE)
        for t in range(n_visible, S):
            for d in range(D):
                dk[b, hk, t, d] = ZERO
                dv[b, hk, t, d] = ZERO
        for i in range(group):
            unpack_rows(dq, b, hk * group + i, 0, T, scratch, d_queries + i * T * step, step, scale)


@jit(inline=True)
def _score_gradients(scratch, weights, d_scores, width, limit, logsumexp, delta):
    """For one row: base-2 scores to weights, and the weights' gradients to the scores'; zero from `limit` on."""
    exponent, mean = broadcast(scratch, logsumexp), broadcast(scratch, delta)
    for column in range(0, width, LANES):
        weight = exp2(subtract(load(scratch, weights + column), exponent))
        gradient = multiply(weight, subtract(load(scratch, d_scores + column), mean))
        store(scratch, weights + column, weight)
        store(scratch, d_scores + column, gradient)
    for column in range(max(0, limit) // LANES * LANES, width, LANES):
        store(scratch, weights + column, first_lanes(load(scratch, weights + column), limit - column, ZERO))
        store(scratch, d_scores + column, first_lanes(load(scratch, d_scores + column), limit - column, ZERO))
    for column in range(width, KEYS, LANES):
        store(scratch, weights + column, zeros())
        store(scratch, d_scores + column, zeros())


@jit(inline=True)
def _pack_deltas(scratch, deltas, grads, step, out, b, h):
    """scratch[deltas + t] = sum over d of g[t, d] out[b, h, t, d], with the rows of g packed at offset `grads`."""
    T, D = out.shape[2], out.shape[3]
    whole = D // LANES * LANES
    for t in range(T):
        row = (b * out.strides[0] + h * out.strides[1] + t * out.strides[2]) // out.itemsize
        sums = zeros()
        for d in range(0, whole, LANES):
            sums = fma(load(scratch, grads + t * step + d), load(out, row + d), sums)
        total = sum_lanes(sums)
        for d in range(whole, D):
            total += scratch[grads + t * step + d] * out[b, h, t, d]
        scratch[deltas + t] = total


@jit(parallel=True)
def backward_parallel(n_threads, address, g, q, k, v, lengths, causal, scale, task, out, logsumexp, dq, dk, dv):
    for _ in prange(n_threads):
        call_address(address, g, q, k, v, lengths, causal, scale, task, out, logsumexp, dq, dk, dv)
