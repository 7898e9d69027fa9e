"""Attention on the CPU, forward: tiles of scores and a running softmax; no T x S matrix is ever held."""

from __future__ import annotations

import math

import numpy as np

from ..jit import jit
from ..launch import in_parts
from ..simd import (
    LANES,
    add,
    broadcast,
    call_address,
    exp2,
    fetch_add,
    first_lanes,
    from_lane,
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
from .contract import BLOCK, EMPTY, MASKS_ONLY, PARTIAL
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

__all__ = ["forward", "forward_all", "modify_rows", "rows_are_empty", "tile_state"]

KEYS = BLOCK  # Keys a block: their K and V stay in the first cache level while the rows of a task pass by.


@jit(inline=True)
def tile_state(states, b, h0, t0, h1, t1, T, j):
    """What the block mask says of a tile with rows from (h0, t0) to (h1, t1) and the keys of block j / BLOCK."""
    if states.size == 0 or T < ROWS:  # (a tile of shorter sequences lies in several heads)
        return PARTIAL
    b = b if states.shape[0] > 1 else 0
    is_one_head = h0 == h1
    h0, h1 = (h0, h1) if states.shape[1] > 1 else (0, 0)
    state = states[b, h0, t0 // BLOCK, j // BLOCK]
    same = state == states[b, h1, t1 // BLOCK, j // BLOCK]
    if not is_one_head:  # from t0 to the end of one head, and from the start of the next to t1
        same = same and state == states[b, h0, (T - 1) // BLOCK, j // BLOCK] and state == states[b, h1, 0, j // BLOCK]
    return state if same else PARTIAL


@jit(inline=True)
def rows_are_empty(states, b, hk, group, row, n_rows, T, j):
    """Whether the block mask hides the keys of block j / BLOCK from all of these rows."""
    if states.size == 0:
        return False
    for i in range(row, row + n_rows, ROWS):
        last = min(i + ROWS, row + n_rows) - 1
        if tile_state(states, b, hk * group + i // T, i % T, hk * group + last // T, last % T, T, j) != EMPTY:
            return False
    return True


@jit(inline=True)
def modify_rows(address, scratch, scores, row_step, n_rows, width, b, hk, group, row, T, j, masked, table):
    """Has the modifier at `address` change the scores of `n_rows` rows, the first of them `row`."""
    h, t = hk * group + row // T, row % T
    for i in range(n_rows):
        call_address(address, scratch, scores + i * row_step, width, b, h, t, j, masked, table)
        t += 1
        if t == T:
            h, t = h + 1, 0


@jit(inline=True)
def _softmax(scratch, scores, n_rows, width, starts, limits, i, j, sums, maxima, block):
    """Turns `n_rows` rows of base-2 scores into weights exp2(score - maximum), zero outside of each row's range.

    Brings the rows' running sums (eight partial ones each) and maxima (one vector) up to date. `block` is room for
    8 x 8 numbers; on return its first row holds the factors by which what was accumulated so far has to shrink.
    """
    for row in range(n_rows):
        first = scores + row * KEYS
        start, limit = min(width, starts[i + row] - j), max(0, limits[i + row] - j)
        for column in range(limit // LANES * LANES, width, LANES):
            kept = first_lanes(load(scratch, first + column), limit - column, MINUS_INFINITY)
            store(scratch, first + column, kept)
        for column in range(0, start, LANES):
            kept = from_lane(load(scratch, first + column), start - column, MINUS_INFINITY)
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
def forward(q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, chunk, task, out, logsumexp):
    """Works off the tasks that `task[0]` counts: each a chunk of query rows of all heads that share one key head.

    Query t sees keys first_keys[b, t] to stop_keys[b, t] - 1, of which `modifiers` and `states` may hide more.

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
    starts = np.empty(chunk, np.int64)
    limits = np.empty(chunk, np.int64)
    words = np.empty((4, KEYS // 4), np.uint32)
    tables = uncounted(tables)
    padded_keys = round_up(S, 4)
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
        n_hidden, n_visible = S, 0
        ranges = b if first_keys.shape[0] > 1 else 0
        for i in range(count):
            t = (start + i) % T
            starts[i], limits[i] = first_keys[ranges, t], stop_keys[ranges, t]
            if starts[i] < limits[i]:
                n_hidden, n_visible = min(n_hidden, starts[i]), max(n_visible, limits[i])
        i = 0
        while i < count:
            h, t = hk * group + (start + i) // T, (start + i) % T
            run = min(T - t, count - i)
            pack_rows(scratch, queries + i * step, step, q, b, h, t, run, scale * LOG2_E)
            i += run
        for j in range(n_hidden // KEYS * KEYS, n_visible, KEYS):
            if rows_are_empty(states, b, hk, group, start, count, T, j):
                continue
            n_keys = min(KEYS, n_visible - j)
            pack_rows(scratch, key_rows, step, k, b, hk, j, n_keys, ONE)
            pack_rows(scratch, values, step, v, b, hk, j, n_keys, ONE)
            pack_panels(scratch, key_panels, key_rows, step, n_keys, D)
            n_next = min(KEYS, n_visible - j - n_keys)
            prefetch_rows(k, b, hk, j + KEYS, n_next)
            prefetch_rows(v, b, hk, j + KEYS, n_next)
            for i in range(0, count, ROWS):
                n_rows = min(ROWS, count - i)
                row = start + i
                n, hidden = 0, KEYS
                for r in range(i, i + n_rows):
                    n, hidden = max(n, min(n_keys, limits[r] - j)), min(hidden, starts[r] - j)
                if max(hidden, 0) >= n:
                    continue
                state = PARTIAL
                if states.size > 0:
                    h, last = hk * group + row // T, row + n_rows - 1
                    state = tile_state(states, b, h, row % T, hk * group + last // T, last % T, T, j)
                    if state == EMPTY:
                        continue
                width, a, c = round_up(n, COLUMNS), queries + i * step, outputs + i * step
                multiply_rows(scratch, scores, KEYS, a, step, 1, key_panels, COLUMNS, COLUMNS * step, width, D, False)
                for m in range(len(modifiers)):
                    address, table, masked = modifiers[m, 0], tables[m], state == PARTIAL
                    if masked or table[MASKS_ONLY] == 0:
                        modify_rows(address, scratch, scores, KEYS, n_rows, n, b, hk, group, row, T, j, masked, table)
                row_sums, row_maxima = sums + i * LANES, maxima + i // ROWS * LANES
                _softmax(scratch, scores, n_rows, width, starts, limits, i, j, row_sums, row_maxima, block)
                if drop[0] > 0:
                    for r in range(n_rows):
                        h, t = hk * group + (row + r) // T, (row + r) % T
                        index = ((b * H + h) * T + t) * padded_keys + j
                        drop_row(scratch, scores + r * KEYS, width, index // 4, drop, words)
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


@jit(inline=True)
def _call(
    address, q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, chunk, task, out, logsumexp,
    start, stop
):  # fmt: skip
    call_address(
        address, q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, chunk, task, out, logsumexp
    )


@jit
def forward_all(
    n_threads, address, q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, chunk, task, out,
    logsumexp
):  # fmt: skip
    """`forward`, whose code is at `address`, on so many threads; linked in, it would be optimised a second time."""
    arguments = q, k, v, first_keys, stop_keys, scale, modifiers, tables, states, drop, chunk, task, out, logsumexp
    in_parts(_call, n_threads, n_threads, (address, *arguments))
