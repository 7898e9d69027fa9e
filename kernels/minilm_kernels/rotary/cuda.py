"""rotary for CUDA: x is read where it lies, and the result is laid out as x is."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, PACK_BYTES, address, contiguous, program
from ..registry import array_module, register


@register("rotary", name="cuda", device="cuda", dtypes=DTYPES)
def rotary(x, cos, sin, *, interleaved):
    return _turned(x, cos, sin, interleaved, 1)


@register("rotary_backward", name="cuda", device="cuda", dtypes=DTYPES)
def rotary_backward(g, cos, sin, *, interleaved):
    return _turned(g, cos, sin, interleaved, -1)


def _turned(x, cos, sin, interleaved, sign):
    xp = array_module(x)
    cos, sin = contiguous(xp, cos, sin)
    if x.shape[3] > 1 and x.strides[3] != x.itemsize:
        x = xp.ascontiguousarray(x)
    y = xp.empty_like(x)
    if y.shape[3] > 1 and y.strides[3] != y.itemsize:  # of an x whose rows are one feature long
        y = xp.empty(x.shape, x.dtype)
    (_, H, T, D), half = x.shape, cos.shape[-1]
    strides = [stride // x.itemsize for stride in (*x.strides[:3], *y.strides[:3])]
    width = _width(x, y, cos, sin, strides, half, D) if not interleaved else 1
    kernel = program(__file__, "rotary.cu", x.dtype, WIDTH=width).kernel("rotary")
    items = x.size // max(D, 1) * ((D - half) // width)
    sizes = np.int32(H), np.int32(T), np.int32(D), np.int32(half), np.bool_(interleaved), np.float32(sign)
    steps = [np.int64(stride) for stride in (*strides, T * half if cos.ndim == 3 else 0)]
    kernel(-(-items // 256), 256, (x, cos, sin, y, *steps, *sizes, np.int64(items)))
    return y


def _width(x, y, cos, sin, strides, half, size) -> int:
    """How many pairs a thread can take at a time: a full pack, or one."""
    width = PACK_BYTES // x.itemsize
    fits = half % width == 0 and size % width == 0 and all(stride % width == 0 for stride in strides)
    return width if fits and all(address(array) % PACK_BYTES == 0 for array in (x, y, cos, sin)) else 1
