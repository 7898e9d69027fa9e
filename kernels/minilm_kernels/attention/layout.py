"""How arrays of (B, H, T, D) lie in memory."""

from __future__ import annotations

import numpy as np

__all__ = ["dense", "heads_like", "is_dense"]


def heads_like(x):
    """An empty (B, H, T, D) array like x, laid out so that merging the heads, to (B, T, H * D), copies nothing."""
    B, H, T, D = x.shape
    return np.empty((B, T, H, D), np.float32).swapaxes(1, 2)


def dense(x):
    """`x` itself if the elements of a row lie side by side, as vector loads need it, else a copy."""
    return x if is_dense(x) else np.ascontiguousarray(x)


def is_dense(x):
    return x.strides[3] == 4 and x.flags.aligned
