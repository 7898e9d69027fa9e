"""The elementwise functions for CUDA: one pass each."""

from __future__ import annotations

from ..cuda.launching import DTYPES, contiguous, launch_flat, pack_width, program
from ..registry import array_module, register


@register("elementwise", name="cuda", device="cuda", dtypes=DTYPES)
def elementwise(x, *, function):
    return _launch("forward", function, x)


@register("elementwise_backward", name="cuda", device="cuda", dtypes=DTYPES)
def elementwise_backward(g, kept, *, function):
    return _launch("backward", function, g, kept)


def _launch(kernel, function, *given):
    xp = array_module(given[0])
    given = contiguous(xp, *given)
    out = xp.empty(given[0].shape, given[0].dtype)
    width = pack_width(out.size, *given, out)
    compiled = program(__file__, "elementwise.cu", out.dtype, WIDTH=width, FUNCTION=function.capitalize()).kernel(
        kernel
    )
    launch_flat(compiled, out.size, width, (*given, out))
    return out
