"""Step 2, blocked: the same lines of NumPy for a block of queries at a time.

What changed: no query needs another one's scores, so a loop takes BLOCK queries of all heads at a time. Only
BLOCK x S scores exist at once: memory grows with S and no longer with T x S, and it is the same memory each time round.
With `causal`, the keys that no query of the block sees are cut off before the product: half of the work is gone.

What limits it: each line still reads and writes all scores of the block, one line after another, on one thread (only
the products use more), and larger blocks leave the cache while smaller ones leave the BLAS too little to work on.
"""

from __future__ import annotations

import math

import numpy as np

from .common import step

BLOCK = 64


@step("step2_blocked", dtypes=("float32", "float64"))
def attention(q, k, v, causal, scale):
    T, S = q.shape[2], k.shape[2]
    out, logsumexp = np.empty_like(q), np.empty(q.shape[:3], q.dtype)
    for start in range(0, T, BLOCK):
        stop = min(start + BLOCK, T)
        n_keys = S - T + stop if causal else S
        scores = scale * q[:, :, start:stop] @ k[:, :, :n_keys].swapaxes(-1, -2)
        if causal:
            last_visible = np.arange(start, stop)[:, None] + (S - T)
            scores = np.where(np.arange(n_keys) > last_visible, scale.dtype.type(-math.inf), scores)
        largest = scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True)
        out[:, :, start:stop] = weights @ v[:, :, :n_keys] / total  # one division a number of out, not a weight
        logsumexp[:, :, start:stop] = (largest + np.log(total))[..., 0]
    return out, logsumexp
