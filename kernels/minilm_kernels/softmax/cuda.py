"""softmax for CUDA: a block a row; other axes than the last are brought there first."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, program, row_threads, same_phase
from ..registry import array_module, register


@register("softmax", name="cuda", device="cuda", dtypes=DTYPES)
def softmax(x, *, axis, mask=None):
    xp = array_module(x)
    if mask is not None:
        mask = xp.moveaxis(xp.broadcast_to(mask, x.shape), axis, -1)
        mask = xp.ascontiguousarray(mask).view(np.uint8)
    (rows,) = contiguous(xp, xp.moveaxis(x, axis, -1))
    y = xp.empty(rows.shape, x.dtype)
    columns = rows.shape[-1]
    kernel = program(__file__, "softmax.cu", x.dtype).kernel("softmax")
    args = rows, mask, y, np.int32(columns), same_phase(rows, y)
    kernel(x.size // max(columns, 1), row_threads(columns), args)
    return xp.moveaxis(y, -1, axis)


@register("softmax_backward", name="cuda", device="cuda", dtypes=DTYPES)
def softmax_backward(g, y, *, axis):
    xp = array_module(y)
    g, y = contiguous(xp, xp.moveaxis(g, axis, -1), xp.moveaxis(y, axis, -1))
    dx = xp.empty(y.shape, y.dtype)
    columns = y.shape[-1]
    kernel = program(__file__, "softmax.cu", y.dtype).kernel("softmax_backward")
    kernel(y.size // max(columns, 1), row_threads(columns), (g, y, dx, np.int32(columns)))
    return xp.moveaxis(dx, -1, axis)
