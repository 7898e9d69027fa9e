"""Attention on the CPU, backward: the weights are computed again, tile by tile, from q, k and logsumexp."""

from __future__ import annotations

import numpy as np

from ..jit import jit
from ..launch import in_parts
from ..simd import (
    LANES,
    broadcast,
    call_address,
    exp2,
    fetch_add,
    first_lanes,
    fma,
    from_lane,
    load,
    multiply,
    store,
    subtract,
    sum_lanes,
    zeros,
)
from .contract import BLOCK, EMPTY, MASKS_ONLY, NO_GRADIENT, PARTIAL
from .forward import modify_rows, rows_are_empty, tile_state
from .keep import drop_row
from .tables import uncounted
from .tiles import (
    COLUMNS,
    LN_2,
    LOG2_E,
    MINUS_INFINITY,
    ONE,
    ROWS,
    ZERO,
    fill,
    multiply_rows,
    pack_panels,
    pack_rows,
    prefetch_rows,
    round_up,
    unpack_rows,
)

__all__ = ["backward", "backward_all"]

QUERIES = KEYS = BLOCK  # Summed over in ROWS, and scores are made in COLUMNS.
TILE = ROWS * KEYS


@jit
def backward(
    g, q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, alone, task, out, logsumexp, dq, dk, dv
):  # fmt: skip
    """Works off the tasks that `task[0]` counts: each is one key head with all the query heads that share it.

    One thread so owns all that is summed into, in a fixed order: the result does not depend on the threads. Where
    batch rows or heads add to one gradient of a bias, `alone` (two numbers, 1 or 0) says so, and they are one task.
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
    kept = d_scores + QUERIES * KEYS
    given = kept + KEYS
    scratch = np.empty(given + len(modifiers) * TILE, np.float32)
    starts = np.empty(padded_rows, np.int64)
    limits = np.empty(padded_rows, np.int64)
    words = np.empty((4, KEYS // 4), np.uint32)
    tables = uncounted(tables)
    padded_keys = round_up(S, 4)
    n_batch_tasks, n_head_tasks = B if alone[0] else 1, Hk if alone[1] else 1
    n_batch, n_heads = B // max(n_batch_tasks, 1), Hk // max(n_head_tasks, 1)
    while True:
        index = fetch_add(task, 1)
        if index >= n_batch_tasks * n_head_tasks:
            break
        for pair in range(n_batch * n_heads):
            b = index // n_head_tasks * n_batch + pair // n_heads
            hk = index % n_head_tasks * n_heads + pair % n_heads
            ranges = b if first_keys.shape[0] > 1 else 0
            n_hidden, n_visible = S, 0
            for i in range(rows):
                starts[i], limits[i] = first_keys[ranges, i % T], stop_keys[ranges, i % T]
                if starts[i] < limits[i]:
                    n_hidden, n_visible = min(n_hidden, starts[i]), max(n_visible, limits[i])
                value = logsumexp[b, hk * group + i // T, i % T]
                scratch[logsumexps + i] = ZERO if value == MINUS_INFINITY else value * LOG2_E
            fill(scratch, d_queries, logsumexps, ZERO)
            for i in range(group):
                h, first = hk * group + i, i * T * step
                pack_rows(scratch, queries + first, step, q, b, h, 0, T, scale * LOG2_E)
                pack_rows(scratch, grads + first, step, g, b, h, 0, T, ONE)
                _pack_deltas(scratch, deltas + i * T, grads + first, step, out, b, h)
            n_hidden = min(n_hidden // KEYS * KEYS, n_visible)
            for j in range(n_hidden, n_visible, KEYS):
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
                    widest, lowest = 0, KEYS
                    for row in range(start, stop):
                        if starts[row] < limits[row]:
                            widest, lowest = max(widest, limits[row] - j), min(lowest, starts[row] - j)
                    widest = min(n_keys, widest)
                    if max(lowest, 0) >= widest:
                        continue
                    if rows_are_empty(states, b, hk, group, start, stop - start, T, j):
                        continue
                    for i in range(start, stop, ROWS):
                        n_rows = min(ROWS, stop - i)
                        n, hidden = 0, KEYS
                        for row in range(i, i + n_rows):
                            n, hidden = max(n, min(n_keys, limits[row] - j)), min(hidden, starts[row] - j)
                        state = PARTIAL
                        if max(hidden, 0) >= n:
                            state = EMPTY
                        elif states.size > 0:
                            h, last = hk * group + i // T, i + n_rows - 1
                            state = tile_state(states, b, h, i % T, hk * group + last // T, last % T, T, j)
                        n = 0 if state == EMPTY else n
                        width, p, ds = round_up(n, COLUMNS), weights + (i - start) * KEYS, d_scores + (i - start) * KEYS
                        a, c, panel = queries + i * step, grads + i * step, COLUMNS * step
                        multiply_rows(scratch, p, KEYS, a, step, 1, key_panels, COLUMNS, panel, width, D, False)
                        multiply_rows(scratch, ds, KEYS, c, step, 1, value_panels, COLUMNS, panel, width, D, False)
                        if n > 0:
                            for m in range(len(modifiers)):
                                address, table, masked = modifiers[m, 0], tables[m], state == PARTIAL
                                if table[NO_GRADIENT] == 0:
                                    _copy(scratch, given + m * TILE, p, TILE)
                                if masked or table[MASKS_ONLY] == 0:
                                    modify_rows(
                                        address, scratch, p, KEYS, n_rows, n, b, hk, group, i, T, j, masked, table
                                    )
                        for row in range(i, i + n_rows):
                            exponent, mean = logsumexps + row, deltas + row
                            low, limit = min(width, starts[row] - j), limits[row] - j
                            first = (row - i) * KEYS
                            if drop[0] > 0 and n > 0:
                                fill(scratch, kept, given, ONE)
                                at = ((b * H + hk * group + row // T) * T + row % T) * padded_keys + j
                                drop_row(scratch, kept, width, at // 4, drop, words)
                                _multiply(scratch, ds + first, kept, width)
                            _score_gradients(scratch, p + first, ds + first, width, low, limit, exponent, mean)
                            if drop[0] > 0 and n > 0:
                                _multiply(scratch, p + first, kept, width)
                        if n > 0:
                            for m in range(len(modifiers) - 1, -1, -1):
                                for row in range(i, i + n_rows if tables[m, NO_GRADIENT] == 0 else i):
                                    first = (row - i) * KEYS
                                    call_address(
                                        modifiers[m, 1],
                                        *(scratch, given + m * TILE + first, ds + first, n),
                                        *(b, hk * group + row // T, row % T, j, tables[m]),
                                    )
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
            _zero_rows(dk, b, hk, 0, n_hidden)
            _zero_rows(dv, b, hk, 0, n_hidden)
            _zero_rows(dk, b, hk, n_visible, S)
            _zero_rows(dv, b, hk, n_visible, S)
            for i in range(group):
                unpack_rows(dq, b, hk * group + i, 0, T, scratch, d_queries + i * T * step, step, scale)


@jit(inline=True)
def _score_gradients(scratch, weights, d_scores, width, start, limit, logsumexp, delta):
    """For one row: base-2 scores to weights, their gradients to the scores'; zero outside of start ... limit."""
    exponent, mean = broadcast(scratch, logsumexp), broadcast(scratch, delta)
    for column in range(0, width, LANES):
        weight = exp2(subtract(load(scratch, weights + column), exponent))
        gradient = multiply(weight, subtract(load(scratch, d_scores + column), mean))
        store(scratch, weights + column, weight)
        store(scratch, d_scores + column, gradient)
    for column in range(max(0, limit) // LANES * LANES, width, LANES):
        store(scratch, weights + column, first_lanes(load(scratch, weights + column), limit - column, ZERO))
        store(scratch, d_scores + column, first_lanes(load(scratch, d_scores + column), limit - column, ZERO))
    for column in range(0, start, LANES):
        store(scratch, weights + column, from_lane(load(scratch, weights + column), start - column, ZERO))
        store(scratch, d_scores + column, from_lane(load(scratch, d_scores + column), start - column, ZERO))
    for column in range(width, KEYS, LANES):
        store(scratch, weights + column, zeros())
        store(scratch, d_scores + column, zeros())


@jit(inline=True)
def _multiply(scratch, row, factors, width):
    for column in range(0, width, LANES):
        store(scratch, row + column, multiply(load(scratch, row + column), load(scratch, factors + column)))


@jit(inline=True)
def _copy(scratch, target, source, count):
    for i in range(0, count, LANES):
        store(scratch, target + i, load(scratch, source + i))


@jit(inline=True)
def _zero_rows(array, b, h, start, stop):
    for t in range(start, stop):
        for d in range(array.shape[3]):
            array[b, h, t, d] = ZERO


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


@jit(inline=True)
def _call(
    address, g, q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, alone, task, out, logsumexp,
    dq, dk, dv, start, stop
):  # fmt: skip
    given = g, q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, alone
    call_address(address, *given, task, out, logsumexp, dq, dk, dv)


@jit
def backward_all(
    n_threads, address, g, q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, alone, task, out,
    logsumexp, dq, dk, dv
):  # fmt: skip
    """`backward`, whose code is at `address`, on so many threads; linked in, it would be optimised a second time."""
    given = g, q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, alone
    in_parts(_call, n_threads, n_threads, (address, *given, task, out, logsumexp, dq, dk, dv))
