"""gelu for CUDA: one pass, the bias added on the way."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, launch_flat, pack_width, program
from ..registry import array_module, register


@register("gelu", name="cuda", device="cuda", dtypes=DTYPES)
def gelu(x, bias, *, approximate):
    xp = array_module(x)
    x, bias = contiguous(xp, x, bias)
    y = xp.empty(x.shape, x.dtype)
    _launch("gelu", (x, bias, y), x, bias, approximate)
    return y


@register("gelu_backward", name="cuda", device="cuda", dtypes=DTYPES)
def gelu_backward(g, x, bias, *, approximate):
    xp = array_module(x)
    g, x, bias = contiguous(xp, g, x, bias)
    dx = xp.empty(x.shape, x.dtype)
    _launch("gelu_backward", (g, x, bias, dx), x, bias, approximate)
    return dx


def _launch(name, arrays, x, bias, approximate):
    columns = x.size if bias is None else bias.size
    width = pack_width(columns, *arrays)
    kernel = program(__file__, "gelu.cu", x.dtype, WIDTH=width).kernel(name)
    settings = np.int32(1 if bias is None else columns), np.bool_(approximate == "tanh")
    launch_flat(kernel, x.size, width, (*arrays, *settings))
