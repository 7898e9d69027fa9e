"""Step 1, the textbook: out = softmax(scale * q k^T) v, a line of NumPy for each sign of the formula.

It is short, and its two products run in the BLAS. But each line makes another array of T x S numbers for every head,
too large for any cache: all but the products is spent waiting for memory, and most of that memory is new each time.

What limits it: memory, in both senses. At T = 4096 and 12 heads each of those arrays takes 0.8 GB.
"""

from __future__ import annotations

import math

import numpy as np

from .common import step


@step("step1_textbook", dtypes=("float32", "float64"))
def attention(q, k, v, causal, scale):
    scores = scale * (q @ k.swapaxes(-1, -2))
    if causal:
        T, S = scores.shape[-2:]
        last_visible = np.arange(T)[:, None] + (S - T)
        scores = np.where(np.arange(S) > last_visible, scale.dtype.type(-math.inf), scores)
    largest = scores.max(axis=-1, keepdims=True)  # taken off, it changes no weight, and lets no exponential overflow
    weights = np.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / total @ v, (largest + np.log(total))[..., 0]
