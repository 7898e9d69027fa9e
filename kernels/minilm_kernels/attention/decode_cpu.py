"""Attention of a few queries to many keys on the CPU, as in decoding: the kernel of `decode.py`, given arrays."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..launch import address_of
from .layout import dense, heads_like

__all__ = ["decode_attention"]

# Below this many multiply-adds, 0.1 ms of them, starting the threads costs more than they save.
SERIAL_WORK = 500_000


def decode_attention(q, k, v, first, stop, scale, modifiers, tables):
    """Weighs the values by how well their keys match each query: `attention`, for few queries a key head.

    q is (B, H, T, D), k and v are (B, Hk, S, D), float32, often the filled part of a longer cache. Query t of batch
    row b sees keys first[b, t] to stop[b, t] - 1, none beyond S; both are int64, (B or 1, T). `modifiers`, (n, 2)
    int64, holds the addresses of functions that change the scores, and `tables`, (n, 64) int64, what these work on.

    K and V are read once, where they lie. Up to a dozen queries a key head this is the faster kernel; then it is
    `forward.py`'s, which packs the keys.

    Returns out (B, H, T, D), laid out so that merging the heads copies nothing, and logsumexp (B, H, T).

    >>> import numpy as np
    >>> q, k, v = (np.ones((1, 2, length, 8), np.float32) for length in (1, 300, 300))
    >>> first, stop = np.array([[0]]), np.array([[200]])
    >>> none = np.zeros((0, 2), np.int64), np.zeros((0, 64), np.int64)
    >>> out, logsumexp = decode_attention(q, k, v, first, stop, 0.0, *none)
    >>> out[0, 0, 0, :2].tolist(), bool(np.allclose(np.exp(logsumexp), 200))  # the mean of 200 ones
    ([1.0, 1.0], True)
    """
    (B, H, T, D), S = q.shape, k.shape[2]
    out = heads_like(q)
    logsumexp = np.empty((B, H, T), np.float32)
    if out.size:
        kernel, address = _kernel()
        parallel = B * H * T * S * D > SERIAL_WORK
        arrays = dense(q), dense(k), dense(v), first, stop
        kernel(address, *arrays, np.float32(scale), modifiers, tables, parallel, out, logsumexp)
    return out, logsumexp


@cache
def _kernel():
    """The compiled kernel, and the address of what it runs on each thread."""
    from numba import types

    from .decode import decode, decode_parts

    array = types.Array(types.float32, 4, "A", readonly=True)
    ranges = types.Array(types.int64, 2, "A", readonly=True)
    modifiers, ints = types.Array(types.int64, 2, "C"), types.Array(types.int64, 1, "C")
    inputs = array, array, array, ranges, ranges, types.float32, modifiers, modifiers
    part_types = *inputs, ints, types.int64, ints, types.Array(types.float32, 1, "C")
    results = types.Array(types.float32, 4, "A"), types.Array(types.float32, 3, "C")
    decode.compile((types.int64, *inputs, types.boolean, *results))
    decode.disable_compile()
    return decode, address_of(decode_parts, part_types)
