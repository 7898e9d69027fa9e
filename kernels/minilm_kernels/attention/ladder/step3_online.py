"""Step 3, online: compiled loops that hold no more than KEYS scores at a time.

What changed: softmax seems to need all scores of a query before its first weight, to know the largest. It doesn't. Keep
the largest so far, and everything relative to it; when a larger one comes, shrink what was summed by exp(old - new)
(Milakov and Gimelshein 2018, arXiv:1805.02867). So KEYS keys and values are brought into the first cache, and each
query of a block makes scores of them, weights of those, and adds the weighted values up before the next keys come
(Dao et al. 2022, arXiv:2205.14135): what NumPy wrote out to memory for its next line to read never leaves the cache.
And all of it, not only the products, is shared out over the threads.

The loops are plain ones. LLVM turns those over d and over the scores into vectors (for that, `exp` is a polynomial: a
call would stay a call), and the polynomial is then a small part of it all.

What limits it: loads and stores. Each multiply-add has a load of its own, and loads are what a core has the fewest of.
"""

from __future__ import annotations

import math

import numpy as np

from ...jit import jit
from ...vector_math import exp, order_key, order_value
from .common import launch, step

QUERIES = 32
KEYS = 64
ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-math.inf)


@step("step3_online")
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
    weights = np.empty(KEYS, np.float32)
    sums = np.zeros((QUERIES, D), np.float32)
    totals = np.zeros(QUERIES, np.float32)
    largest = np.full(QUERIES, MINUS_INFINITY)
    n_keys = S - T + stop if causal else S
    for first in range(0, n_keys, KEYS):
        keys, values = k[n, 0, first : first + KEYS], v[n, 0, first : first + KEYS]
        for t in range(start, stop):
            seen = (min(S - T + t + 1, n_keys) if causal else n_keys) - first
            if seen > 0:
                seen = min(seen, KEYS)
                _scores(weights, q[n, g, t], keys, seen, scale)
                shrink = online_softmax(weights, seen, largest, totals, t - start)
                _add_values(sums[t - start], shrink, weights, values, seen)
    for t in range(start, stop):
        share = ONE / totals[t - start]
        for d in range(D):
            out[n, g, t, d] = sums[t - start, d] * share
        logsumexp[n, g, t] = largest[t - start] + np.float32(math.log(totals[t - start]))


@jit(inline=True)
def _scores(scores, query, keys, seen, scale):
    """scores[j] = scale * query . keys[j] for the first `seen` keys."""
    for j in range(seen):
        key = keys[j]
        score = ZERO
        for d in range(query.size):
            score += query[d] * key[d]
        scores[j] = score * scale


@jit(inline=True)
def online_softmax(scores, seen, largest, totals, i):
    """Turns the first `seen` scores into weights relative to query i's largest score so far, and the others to zero.

    Brings largest[i] and totals[i] up to date, and returns the factor by which what was summed before has to shrink.
    The maximum is one of integers ordered as the scores are: that of floats LLVM does not turn into vectors.
    """
    highest = order_key(largest[i])
    for j in range(seen):
        highest = max(highest, order_key(scores[j]))
    new = order_value(highest)
    shrink = exp(largest[i] - new)
    total = ZERO
    for j in range(seen):
        scores[j] = exp(scores[j] - new)
        total += scores[j]
    for j in range(max(seen, 0), scores.size):
        scores[j] = ZERO
    largest[i], totals[i] = new, totals[i] * shrink + total
    return shrink


@jit(inline=True)
def _add_values(sums, shrink, weights, values, seen):
    """sums = shrink * sums + weights @ values, four values at a time: so sums are read and written once for four."""
    for d in range(sums.size):
        sums[d] *= shrink
    whole = seen // 4 * 4
    for j in range(0, whole, 4):
        v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
        w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        for d in range(sums.size):
            sums[d] += (w0 * v0[d] + w1 * v1[d]) + (w2 * v2[d] + w3 * v3[d])
    for j in range(whole, seen):
        value, weight = values[j], weights[j]
        for d in range(sums.size):
            sums[d] += weight * value[d]
