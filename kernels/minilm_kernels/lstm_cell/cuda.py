"""lstm_cell for CUDA: one pass, a thread for each number of the state."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, launch_flat, program
from ..registry import array_module, register


@register("lstm_cell", name="cuda", device="cuda", dtypes=DTYPES)
def lstm_cell(gates, c, *, into):
    xp = array_module(c)
    gates, c = contiguous(xp, gates, c)
    h_next, c_next, activated = into or (xp.empty_like(c), xp.empty_like(c), xp.empty_like(gates))
    _launch("lstm_cell", c, gates, c, h_next, c_next, activated)
    return h_next, c_next, activated


@register("lstm_cell_backward", name="cuda", device="cuda", dtypes=DTYPES)
def lstm_cell_backward(g_h, g_c, activated, c, c_next, *, into):
    xp = array_module(c)
    arrays = contiguous(xp, g_h, g_c, activated, c, c_next)
    dgates, dc = into or (xp.empty(activated.shape, c.dtype), xp.empty(c.shape, c.dtype))
    _launch("lstm_cell_backward", c, *arrays, dgates, dc)
    return dgates, dc


def _launch(name, c, *arrays):
    kernel = program(__file__, "lstm_cell.cu", c.dtype).kernel(name)
    launch_flat(kernel, c.size, 1, (*arrays, np.int32(c.shape[1])))
