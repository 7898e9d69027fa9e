"""add_bias for CUDA, in place."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, launch_flat, pack_width, program
from ..registry import array_module, register


def _strided(x, bias) -> str | None:
    return None if x.flags.c_contiguous else "it adds in place to C-contiguous arrays, and x is not one"


@register("add_bias", name="cuda", device="cuda", dtypes=DTYPES, limits=_strided)
def add_bias(x, bias):
    (bias,) = contiguous(array_module(x), bias)
    width = pack_width(bias.size, x, bias)
    kernel = program(__file__, "add_bias.cu", x.dtype, WIDTH=width).kernel("add_bias")
    launch_flat(kernel, x.size, width, (x, bias, np.int32(bias.size)))
    return x
