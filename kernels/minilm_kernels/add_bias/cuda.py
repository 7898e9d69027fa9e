"""add_bias for CUDA, in place."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, launch_flat, pack_width, program
from ..registry import array_module, register
from ..rows import row_length, rows_are_whole


def _strided(x, bias) -> str | None:
    return None if rows_are_whole(x) else "it adds in place to rows whose numbers lie side by side, and x has others"


@register("add_bias", name="cuda", device="cuda", dtypes=DTYPES, limits=_strided)
def add_bias(x, bias):
    (bias,) = contiguous(array_module(x), bias)
    (rows, columns), row = x.shape, row_length(x)
    width = pack_width(row, x, bias)
    packs = -(-columns // width)  # of a row; the last one may be less
    kernel = program(__file__, "add_bias.cu", x.dtype, WIDTH=width).kernel("add_bias")
    launch_flat(kernel, rows * packs, 1, (x, bias, np.int32(columns), np.int64(row), np.int32(packs)))
    return x
