"""Which keys a query may see: causal, window, key lengths and packed sequences all become one range of keys a row."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..registry import array_module

__all__ = ["row_ranges", "window_sides"]


def window_sides(window) -> tuple[int | None, int | None]:
    """(left, right) of a window given as one number or as a pair, None for a side without an end."""
    return (window - 1, window - 1) if isinstance(window, int) else window


def row_ranges(q, S, *, causal, window, key_lengths, cu_seqlens, cu_seqlens_k):
    """(first, stop, position), each (B or 1, T) int64: query t sees keys first[t] to stop[t] - 1, and stands at key
    `position`, from which a window and ALiBi count: keys and queries of a sequence are aligned at their ends."""
    T = q.shape[2]
    xp = array_module(q)
    if cu_seqlens is None and xp is np:  # asked for at every step of decoding
        ranges = _plain_ranges(T, S, causal, window)
    else:
        ranges = _ranges(xp, T, S, causal, window, cu_seqlens, cu_seqlens_k)
    if key_lengths is None:
        return ranges
    first, stop, position = ranges
    stop = xp.minimum(stop, key_lengths.astype(np.int64)[:, None])
    return xp.minimum(first, stop), stop, xp.broadcast_to(position, stop.shape)


@lru_cache(maxsize=64)
def _plain_ranges(T, S, causal, window):
    ranges = _ranges(np, T, S, causal, window, None, None)
    for array in ranges:
        array.flags.writeable = False
    return ranges


def _ranges(xp, T, S, causal, window, cu_seqlens, cu_seqlens_k):
    t = xp.arange(T, dtype=np.int64)[None]
    if cu_seqlens is None:
        first, stop, position = xp.zeros_like(t), xp.full_like(t, S), t + (S - T)
    else:
        sequence = xp.searchsorted(cu_seqlens[1:], t[0], side="right")
        first, stop = (cu_seqlens_k.astype(np.int64)[sequence + i][None] for i in (0, 1))
        position = stop - cu_seqlens.astype(np.int64)[sequence + 1] + t
    left, right = (None, None) if window is None else window
    right = 0 if causal and right is None else min(right, 0) if causal else right
    if left is not None:
        first = xp.maximum(first, xp.minimum(position - left, stop))
    if right is not None:
        stop = xp.maximum(first, xp.minimum(stop, position + right + 1))
    return first, stop, position
