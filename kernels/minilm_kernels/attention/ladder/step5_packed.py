"""Step 5, packed: a block of values is transposed first, so that both products keep their sums in registers.

What changed: the second product adds up over keys, but a value lies in memory by d, so the steps before added each
value to sums in the cache: a load and a store for every four multiply-adds. Packed as `columns` (D, KEYS), number d of
all values side by side, it is a product of rows with rows like the first one, and has the same tile: 4 x 2 sums in
registers, and one long loop over keys that only reads. To pack a block costs D numbers a key, once for QUERIES queries,
and leaves it in the order in which it is read. Blocks are larger, since longer loops pay more seldom for their ends.

What limits it: a sum goes across the lanes of a vector, in both products now. To add the lanes up takes as many
instructions as the multiply-adds that filled them; and a tile of 4 x 2 needs six loads for eight of those.
"""

from __future__ import annotations

import math

import numpy as np

from ...jit import jit
from .common import launch, step
from .step3_online import online_softmax
from .step4_tiled import scores_of_tile

QUERIES = 128
KEYS = 384
ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-math.inf)


@step("step5_packed")
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
    queries = np.zeros((QUERIES, D), np.float32)  # scaled, and padded with zeros to whole tiles
    for t in range(start, stop):
        for d in range(D):
            queries[t - start, d] = q[n, g, t, d] * scale
    columns = np.empty((D, KEYS), np.float32)
    weights = np.empty((QUERIES, KEYS), np.float32)
    seen = np.empty(QUERIES, np.int64)
    shrink = np.empty(QUERIES, np.float32)
    sums = np.zeros((QUERIES, D), np.float32)
    totals = np.zeros(QUERIES, np.float32)
    largest = np.full(QUERIES, MINUS_INFINITY)
    n_keys = S - T + stop if causal else S
    for first in range(0, n_keys, KEYS):
        keys, values = k[n, 0, first : first + KEYS], v[n, 0, first : first + KEYS]
        n_seen = min(KEYS, n_keys - first)
        for d in range(D):
            for j in range(n_seen):
                columns[d, j] = values[j, d]
        for i in range(0, stop - start, 4):
            # What the last of the four queries sees; the others see up to three keys less.
            seen[i] = max(0, min(n_seen, S - T + start + i + 4 - first)) if causal else n_seen
            scores_of_tile(weights[i : i + 4], queries[i : i + 4], keys, seen[i])
        for i in range(0, stop - start, 4):
            for r in range(i, i + 4):
                sees = min(seen[i], S - T + start + r + 1 - first) if causal else n_seen
                shrink[r] = online_softmax(weights[r, : seen[i]], sees, largest, totals, r)
        for i in range(0, stop - start, 4):
            if seen[i] > 0:
                _add_values(sums[i : i + 4], shrink[i : i + 4], weights[i : i + 4], columns, seen[i])
    for t in range(start, stop):
        share = ONE / totals[t - start]
        for d in range(D):
            out[n, g, t, d] = sums[t - start, d] * share
        logsumexp[n, g, t] = largest[t - start] + np.float32(math.log(totals[t - start]))


@jit(inline=True)
def _add_values(sums, shrink, weights, columns, seen):
    """sums[r] = shrink[r] * sums[r] + columns @ weights[r] for four queries r, two columns at a time."""
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for d in range(0, len(columns), 2):
        other = min(d + 1, len(columns) - 1)  # of an odd number, the last column is taken twice
        ca, cb = columns[d], columns[other]
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = ZERO
        for j in range(seen):
            a0 += w0[j] * ca[j]
            a1 += w1[j] * ca[j]
            a2 += w2[j] * ca[j]
            a3 += w3[j] * ca[j]
            b0 += w0[j] * cb[j]
            b1 += w1[j] * cb[j]
            b2 += w2[j] * cb[j]
            b3 += w3[j] * cb[j]
        _add(sums, d, shrink, a0, a1, a2, a3)
        if other > d:
            _add(sums, other, shrink, b0, b1, b2, b3)


@jit(inline=True)
def _add(sums, d, shrink, x0, x1, x2, x3):
    sums[0, d] = sums[0, d] * shrink[0] + x0
    sums[1, d] = sums[1, d] * shrink[1] + x1
    sums[2, d] = sums[2, d] * shrink[2] + x2
    sums[3, d] = sums[3, d] * shrink[3] + x3
