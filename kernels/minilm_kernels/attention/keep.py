"""Attention dropout: which weights are kept, from random numbers that forward and backward compute alike."""

from __future__ import annotations

import numpy as np
from numba import types

from ..dropout import threshold_and_scale
from ..dropout.cpu import philox
from ..jit import jit, only_for
from .tiles import SCRATCH

__all__ = ["DROP", "drop_row", "drop_settings"]

DROP = types.Array(types.uint64, 1, "C")


def drop_settings(p: float, seed: int) -> np.ndarray:
    """[threshold, seed, bits of 1 / (1 - p)] as `drop_row` takes them; a threshold of 0: nothing is dropped."""
    threshold, scale = threshold_and_scale(p)
    return np.array([threshold, seed, np.float32(scale).view(np.uint32)], np.uint64)


@only_for(SCRATCH, *[types.int64] * 3, DROP, types.Array(types.uint32, 2, "C"))
@jit
def drop_row(scratch, offset, width, counter, drop, words):
    """Zeroes or scales up scratch[offset : offset + width], as `dropout` does the elements from 4 * counter on.

    `width` is a multiple of four; `words` (4, width / 4 or more) is room for the random numbers.
    """
    count = width // 4
    w0, w1, w2, w3 = words[0][:count], words[1][:count], words[2][:count], words[3][:count]
    philox(w0, w1, w2, w3, counter, np.uint64(0), drop[1])
    threshold, scale = np.uint32(drop[0]), np.uint32(drop[2]).view(np.float32)
    row, zero = scratch[offset : offset + width], np.float32(0)
    for i in range(count):
        row[4 * i] = row[4 * i] * scale if w0[i] >= threshold else zero
        row[4 * i + 1] = row[4 * i + 1] * scale if w1[i] >= threshold else zero
        row[4 * i + 2] = row[4 * i + 2] * scale if w2[i] >= threshold else zero
        row[4 * i + 3] = row[4 * i + 3] * scale if w3[i] >= threshold else zero
