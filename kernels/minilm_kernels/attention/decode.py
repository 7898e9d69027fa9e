"""Attention on the CPU for a few queries and many keys, as in decoding: as fast as K and V can be read.

K and V are read once, where they lie. The keys are cut into parts of one size, and the softmax of each part is worked
out on its own, by whichever thread is free; then the parts are weighed by their sums, always in the same order
(flash-decoding, Dao et al. 2023, https://crfm.stanford.edu/2023/10/12/flashdecoding.html).

All queries that share a key head are done together, eight keys at a time, which stay in the first cache level while the
queries pass by. With so few queries, packing the keys for a product of tiles would cost more than it saves.
"""

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
    fma,
    load,
    max_lanes,
    maximum,
    multiply,
    prefetch,
    splat,
    store,
    subtract,
    sum_lanes,
    zeros,
)
from .lanes import load_first, sums_of_lanes
from .tables import uncounted
from .tiles import LN_2, LOG2_E, MINUS_INFINITY, ONE, ZERO, round_up

__all__ = ["PART", "decode", "decode_parts"]

PART = 512  # Keys a part: their scores stay in a core's own caches.
# How many elements before their use K and V are asked for, in the order of memory. Left to guess where eight rows that
# are read side by side go on, the processor brings them in half as fast.
AHEAD = 2048
SLICE = 64  # Scores that a modifier is given at a time.
WORKERS = 64  # No more threads than that take tasks.
LINE = 16  # Elements of a cache line.


@jit(inline=True)
def _score(scratch, query, D, k, key, step, count, scores):
    """Writes the scores of eight keys to offset `scores`: `count` of them, and then the last one's again.

    The first key's row is at offset `key`, and the rows are `step` apart.
    """
    last = count - 1
    k1, k2, k3 = min(1, last) * step, min(2, last) * step, min(3, last) * step
    k4, k5, k6, k7 = min(4, last) * step, min(5, last) * step, min(6, last) * step, min(7, last) * step
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zeros()
    for d in range(key, key + D // LANES * LANES, LANES):
        x = load(scratch, query)
        s0, s1 = fma(x, load(k, d), s0), fma(x, load(k, d + k1), s1)
        s2, s3 = fma(x, load(k, d + k2), s2), fma(x, load(k, d + k3), s3)
        s4, s5 = fma(x, load(k, d + k4), s4), fma(x, load(k, d + k5), s5)
        s6, s7 = fma(x, load(k, d + k6), s6), fma(x, load(k, d + k7), s7)
        query += LANES
    store(scratch, scores, sums_of_lanes(s0, s1, s2, s3, s4, s5, s6, s7))
    if D % LANES:
        x = load(scratch, query)
        for i in range(count):
            rest = load_first(k, key + i * step + D // LANES * LANES, D % LANES)
            scratch[scores + i] += sum_lanes(multiply(x, rest))


@jit(inline=True)
def _weigh(scratch, weights, D, v, key, step, count, output):
    """Adds `count` values, eight at most, each times its weight, to the row at offset `output`."""
    last = count - 1
    v1, v2, v3 = min(1, last) * step, min(2, last) * step, min(3, last) * step
    v4, v5, v6, v7 = min(4, last) * step, min(5, last) * step, min(6, last) * step, min(7, last) * step
    w0, w1 = broadcast(scratch, weights), broadcast(scratch, weights + 1)
    w2, w3 = broadcast(scratch, weights + 2), broadcast(scratch, weights + 3)
    w4, w5 = broadcast(scratch, weights + 4), broadcast(scratch, weights + 5)
    w6, w7 = broadcast(scratch, weights + 6), broadcast(scratch, weights + 7)
    for d in range(key, key + D // LANES * LANES, LANES):
        x = fma(w1, load(v, d + v1), fma(w0, load(v, d), load(scratch, output)))
        y = fma(w3, load(v, d + v3), multiply(w2, load(v, d + v2)))
        x = fma(w5, load(v, d + v5), fma(w4, load(v, d + v4), x))
        y = fma(w7, load(v, d + v7), fma(w6, load(v, d + v6), y))
        store(scratch, output, add(x, y))
        output += LANES
    if D % LANES:
        x = load(scratch, output)
        for i in range(count):
            rest = load_first(v, key + i * step + D // LANES * LANES, D % LANES)
            x = fma(broadcast(scratch, weights + i), rest, x)
        store(scratch, output, x)


@jit(inline=True)
def _prefetch(array, row, step, count, D):
    """Asks for `count` rows, the first of them at offset `row`, to be brought into the cache."""
    for _ in range(count):
        for d in range(0, D, LINE):
            prefetch(array, row + d)
        row += step


@jit(inline=True)
def _softmax(scratch, scores, count, result):
    """Turns `count` base-2 scores into weights exp2(score - maximum), zero from there to the next multiple of LANES.

    Writes the maximum and the sum of the weights to offset `result`: -inf and zero where no key is visible.
    """
    end = scores + count // LANES * LANES
    if end < scores + count:
        store(scratch, end, first_lanes(load(scratch, end), scores + count - end, MINUS_INFINITY))
    highest = splat(MINUS_INFINITY)
    for c in range(scores, scores + count, LANES):
        highest = maximum(load(scratch, c), highest)
    largest = max_lanes(highest)
    base, total = splat(ZERO if largest == MINUS_INFINITY else largest), zeros()
    for c in range(scores, scores + count, LANES):
        weights = exp2(subtract(load(scratch, c), base))
        total = add(total, weights)
        store(scratch, c, weights)
    scratch[result], scratch[result + 1] = largest, sum_lanes(total)


@jit
def decode_parts(q, k, v, first, stop, scale, modifiers, tables, spans, parts, task, partial):
    """Works off the tasks that `task[0]` counts: each a part of the keys of one key head, for all of its queries.

    For each query of each task it leaves a row of `partial`: the sum of the values times their weights, D numbers and
    padding, then the score that these weights are relative to, and their sum.
    """
    tables = uncounted(tables)
    H, T, D = q.shape[1], q.shape[2], q.shape[3]
    B, Hk = k.shape[0], k.shape[1]
    group = H // Hk
    rows = group * T
    k_step, v_step = k.strides[2] // 4, v.strides[2] // 4
    size = round_up(D, LANES)
    step = size + LANES
    share = (LANES + rows - 1) // rows  # of the keys to ask for next: a few between two queries, for many have to queue
    queries = 0
    results = queries + rows * size
    scores = results + rows * step
    scratch = np.empty(scores + rows * PART, np.float32)
    lows, counts = np.empty(rows, np.int64), np.empty(rows, np.int64)
    while True:
        index = fetch_add(task, 1)
        if index >= B * Hk * parts:
            break
        b, hk, part = index // (Hk * parts), index // parts % Hk, index % parts
        k_row, v_row = (b * k.strides[0] + hk * k.strides[1]) // 4, (b * v.strides[0] + hk * v.strides[1]) // 4
        ranges = min(b, len(first) - 1)
        start = spans[2 * ranges] + part * PART
        end = min(start + PART, spans[2 * ranges + 1])
        longest = 0
        for row in range(rows):
            lows[row] = max(start, first[ranges, row % T])
            counts[row] = max(0, min(end, stop[ranges, row % T]) - lows[row])
            longest = max(longest, counts[row])
        for d in range(queries, scores, LANES):
            store(scratch, d, zeros())
        for row in range(rows):
            for d in range(D):
                scratch[queries + row * size + d] = q[b, hk * group + row // T, row % T, d] * (scale * LOG2_E)
        for c in range(0, longest, LANES):
            ahead = next_key = start + c + AHEAD // D
            for row in range(rows):
                n = min(share, ahead + LANES - next_key, end - next_key)
                _prefetch(k, k_row + next_key * k_step, k_step, n, D)
                next_key += share
                if c < counts[row]:
                    key, at = k_row + (lows[row] + c) * k_step, scores + row * PART + c
                    _score(scratch, queries + row * size, D, k, key, k_step, min(LANES, counts[row] - c), at)
        for row in range(rows):
            h, t = hk * group + row // T, row % T
            for m in range(len(modifiers)):
                for c in range(0, counts[row], SLICE):
                    at, width = scores + row * PART + c, min(SLICE, counts[row] - c)
                    call_address(modifiers[m, 0], scratch, at, width, b, h, t, lows[row] + c, True, tables[m])
            _softmax(scratch, scores + row * PART, counts[row], results + row * step + size)
        for c in range(0, longest, LANES):
            ahead = next_key = start + c + AHEAD // D
            for row in range(rows):
                n = min(share, ahead + LANES - next_key, end - next_key)
                _prefetch(v, v_row + next_key * v_step, v_step, n, D)
                next_key += share
                if c < counts[row]:
                    key, at = v_row + (lows[row] + c) * v_step, scores + row * PART + c
                    _weigh(scratch, at, D, v, key, v_step, min(LANES, counts[row] - c), results + row * step)
        for d in range(0, rows * step, LANES):
            store(partial, index * rows * step + d, load(scratch, results + d))


@jit(inline=True)
def _combine(partial, row, step, parts, size):
    """Adds up what the parts left of one query in rows `step` apart, the first at offset `row`, which takes the sum.

    Returns the largest score of all, and the sum of the weights relative to it.
    """
    largest, total = MINUS_INFINITY, ZERO
    for part in range(parts):
        largest = max(largest, partial[row + part * step + size])
    base = ZERO if largest == MINUS_INFINITY else largest
    for at in range(row + size, row + size + parts * step, step):
        factor = max_lanes(exp2(splat(partial[at] - base)))
        total += factor * partial[at + 1]
        partial[at] = factor
    for d in range(row, row + size, LANES):
        x = zeros()
        for part in range(parts):
            x = fma(broadcast(partial, row + part * step + size), load(partial, d + part * step), x)
        store(partial, d, x)
    return largest, total


@jit
def _call(address, arguments, _start, _stop):
    call_address(address, *arguments)


@jit
def decode(address, q, k, v, first, stop, scale, modifiers, tables, parallel, out, logsumexp):
    """Attention of q (B, H, T, D), T small, to k and v (B, Hk, S, D), into out and logsumexp (B, H, T).

    Query t of batch row b sees keys first[b, t] to stop[b, t] - 1; both are (B or 1, T). Each modifier is called, by
    its address modifiers[m, 0] and with its table tables[m], to change the scores or to hide more keys.
    """
    H, T, D = q.shape[1], q.shape[2], q.shape[3]
    B, Hk = k.shape[0], k.shape[1]
    rows = H // Hk * T
    size = round_up(D, LANES)
    step = size + LANES
    spans = np.empty(2 * len(first), np.int64)
    longest = 0
    for b in range(len(first)):
        low, high = k.shape[2], 0
        for t in range(T):
            if first[b, t] < stop[b, t]:
                low, high = min(low, first[b, t]), max(high, stop[b, t])
        spans[2 * b], spans[2 * b + 1] = low, high
        longest = max(longest, high - low)
    parts = (longest + PART - 1) // PART
    task = np.empty(1, np.int64)
    task[0] = 0
    partial = np.empty(max(1, parts) * B * H * T * step, np.float32)
    workers = min(B * Hk * parts, WORKERS) if parallel else 1
    arguments = q, k, v, first, stop, scale, modifiers, tables, spans, parts, task, partial
    in_parts(_call, workers, workers, (address, arguments))
    for b in range(B):
        for h in range(H):
            for t in range(T):
                row = ((b * Hk + h // (H // Hk)) * parts * rows + h % (H // Hk) * T + t) * step
                largest, total = _combine(partial, row, rows * step, parts, size)
                logsumexp[b, h, t] = largest * LN_2 + np.float32(math.log(total))
                inverse = ZERO if total == ZERO else ONE / total
                for d in range(D):
                    out[b, h, t, d] = partial[row + d] * inverse
