"""log_softmax for CUDA: a block a row; other axes than the last are brought there first."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, program, row_threads, same_phase
from ..registry import array_module, register


@register("log_softmax", name="cuda", device="cuda", dtypes=DTYPES)
def log_softmax(x, *, axis):
    return _launch("log_softmax", axis, x)


@register("log_softmax_backward", name="cuda", device="cuda", dtypes=DTYPES)
def log_softmax_backward(g, y, *, axis):
    return _launch("log_softmax_backward", axis, g, y)


def _launch(name, axis, *given):
    xp = array_module(given[0])
    rows = contiguous(xp, *(xp.moveaxis(array, axis, -1) for array in given))
    out = xp.empty(rows[0].shape, rows[0].dtype)
    columns = out.shape[-1]
    kernel = program(__file__, "log_softmax.cu", out.dtype).kernel(name)
    args = *rows, out, np.int32(columns), same_phase(*rows, out)
    kernel(out.size // max(columns, 1), row_threads(columns), args)
    return xp.moveaxis(out, -1, axis)
