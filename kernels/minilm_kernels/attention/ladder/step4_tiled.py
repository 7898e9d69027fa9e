"""Step 4, tiled: a number that was loaded serves several multiply-adds before it is dropped.

What changed: queries and keys meet in small tiles whose sums are all under way at once, in registers. Four queries take
two keys together: six loads for eight multiply-adds, where it was two for one. Two queries take four values together:
eight loads and stores for eight, where it was six for four. The loops are plain ones still, and the softmax between the
two products is that of step 3.

What limits it: a score is a sum across the lanes of a vector. To add the lanes up takes as many instructions as the
multiply-adds that filled them, and gives one number where a vector has room for eight.
"""

from __future__ import annotations

import math

import numpy as np

from ...jit import jit
from .common import launch, step
from .step3_online import online_softmax

QUERIES = 64
KEYS = 64
ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-math.inf)


@step("step4_tiled")
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
    weights = np.empty((4, KEYS), np.float32)
    shrink = np.empty(4, np.float32)
    sums = np.zeros((QUERIES, D), np.float32)
    totals = np.zeros(QUERIES, np.float32)
    largest = np.full(QUERIES, MINUS_INFINITY)
    n_keys = S - T + stop if causal else S
    for first in range(0, n_keys, KEYS):
        keys, values = k[n, 0, first : first + KEYS], v[n, 0, first : first + KEYS]
        for i in range(0, stop - start, 4):
            # What the last of the four queries sees; the others see up to three keys less.
            seen = min(KEYS, n_keys - first, S - T + start + i + 4 - first if causal else S)
            if seen > 0:
                scores_of_tile(weights, queries[i : i + 4], keys, seen)
                for r in range(4):
                    sees = min(seen, S - T + start + i + r + 1 - first) if causal else seen
                    shrink[r] = online_softmax(weights[r], sees, largest, totals, i + r)
                for r in range(0, 4, 2):
                    _add_values(sums[i + r : i + r + 2], shrink[r : r + 2], weights[r : r + 2], values, seen)
    for t in range(start, stop):
        share = ONE / totals[t - start]
        for d in range(D):
            out[n, g, t, d] = sums[t - start, d] * share
        logsumexp[n, g, t] = largest[t - start] + np.float32(math.log(totals[t - start]))


@jit(inline=True)
def scores_of_tile(scores, queries, keys, seen):
    """scores = queries @ keys^T for four queries and the first `seen` keys, two keys at a time."""
    q0, q1, q2, q3 = queries[0], queries[1], queries[2], queries[3]
    for j in range(0, seen, 2):
        other = min(j + 1, seen - 1)  # of an odd number, the last key is taken twice
        ka, kb = keys[j], keys[other]
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = ZERO
        for d in range(q0.size):
            a0 += q0[d] * ka[d]
            a1 += q1[d] * ka[d]
            a2 += q2[d] * ka[d]
            a3 += q3[d] * ka[d]
            b0 += q0[d] * kb[d]
            b1 += q1[d] * kb[d]
            b2 += q2[d] * kb[d]
            b3 += q3[d] * kb[d]
        scores[0, j], scores[1, j], scores[2, j], scores[3, j] = a0, a1, a2, a3
        scores[0, other], scores[1, other], scores[2, other], scores[3, other] = b0, b1, b2, b3


@jit(inline=True)
def _add_values(sums, shrink, weights, values, seen):
    """sums[r] = shrink[r] * sums[r] + weights[r] @ values for two queries r, four values at a time."""
    sa, sb = sums[0], sums[1]
    for d in range(sa.size):
        sa[d] *= shrink[0]
        sb[d] *= shrink[1]
    whole = seen // 4 * 4
    for j in range(0, whole, 4):
        v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
        a0, a1, a2, a3 = weights[0, j], weights[0, j + 1], weights[0, j + 2], weights[0, j + 3]
        b0, b1, b2, b3 = weights[1, j], weights[1, j + 1], weights[1, j + 2], weights[1, j + 3]
        for d in range(sa.size):
            sa[d] += (a0 * v0[d] + a1 * v1[d]) + (a2 * v2[d] + a3 * v3[d])
            sb[d] += (b0 * v0[d] + b1 * v1[d]) + (b2 * v2[d] + b3 * v3[d])
    for j in range(whole, seen):
        value, a, b = values[j], weights[0, j], weights[1, j]
        for d in range(sa.size):
            sa[d] += a * value[d]
            sb[d] += b * value[d]
