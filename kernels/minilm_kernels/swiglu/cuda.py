"""swiglu for CUDA: one pass forward, one backward for both gradients."""

from __future__ import annotations

from ..cuda.launching import DTYPES, contiguous, launch_flat, pack_width, program
from ..registry import array_module, register


@register("swiglu", name="cuda", device="cuda", dtypes=DTYPES)
def swiglu(gate, up):
    xp = array_module(gate)
    gate, up = contiguous(xp, gate, up)
    y = xp.empty(gate.shape, gate.dtype)
    _launch("swiglu", gate, up, y)
    return y


@register("swiglu_backward", name="cuda", device="cuda", dtypes=DTYPES)
def swiglu_backward(g, gate, up):
    xp = array_module(gate)
    g, gate, up = contiguous(xp, g, gate, up)
    dgate, dup = xp.empty(gate.shape, gate.dtype), xp.empty(gate.shape, gate.dtype)
    _launch("swiglu_backward", g, gate, up, dgate, dup)
    return dgate, dup


def _launch(name, *arrays):
    count = arrays[0].size
    width = pack_width(count, *arrays)
    kernel = program(__file__, "swiglu.cu", arrays[0].dtype, WIDTH=width).kernel(name)
    launch_flat(kernel, count, width, arrays)
