"""gru_cell for CUDA: one pass, a thread for each number of the state."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, launch_flat, program
from ..registry import array_module, register


@register("gru_cell", name="cuda", device="cuda", dtypes=DTYPES)
def gru_cell(inputs, hiddens, h, *, into):
    xp = array_module(h)
    inputs, hiddens, h = contiguous(xp, inputs, hiddens, h)
    h_next, activated = into or (xp.empty_like(h), xp.empty_like(inputs))
    _launch("gru_cell", h, inputs, hiddens, h, h_next, activated)
    return h_next, activated


@register("gru_cell_backward", name="cuda", device="cuda", dtypes=DTYPES)
def gru_cell_backward(g, hiddens, h, activated, *, into):
    xp = array_module(h)
    g, hiddens, h, activated = contiguous(xp, g, hiddens, h, activated)
    dinputs, dhiddens, dh = into or (xp.empty_like(hiddens), xp.empty_like(hiddens), xp.empty_like(h))
    _launch("gru_cell_backward", h, g, hiddens, h, activated, dinputs, dhiddens, dh)
    return dinputs, dhiddens, dh


def _launch(name, h, *arrays):
    kernel = program(__file__, "gru_cell.cu", h.dtype).kernel(name)
    launch_flat(kernel, h.size, 1, (*arrays, np.int32(h.shape[1])))
