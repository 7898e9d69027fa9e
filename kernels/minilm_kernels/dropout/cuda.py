"""dropout for CUDA: the numbers are computed where they are used, and are those of every other device."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, program
from ..registry import array_module, register
from . import threshold_and_scale


@register("dropout", name="cuda", device="cuda", dtypes=DTYPES)
def dropout(x, *, p, seed, offset):
    xp = array_module(x)
    (x,) = contiguous(xp, x)
    y = xp.empty(x.shape, x.dtype)
    threshold, scale = threshold_and_scale(p)
    kernel = program(__file__, "dropout.cu", x.dtype).kernel("dropout")
    seeds = (np.uint64(0), seed) if hasattr(seed, "shape") else (np.uint64(seed), None)
    settings = np.uint32(threshold), np.float32(scale), *seeds, np.uint64(offset), np.int64(x.size)
    kernel(-(-x.size // 1024), 256, (x, y, *settings))
    return y
