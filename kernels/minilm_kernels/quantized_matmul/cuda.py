"""quantized_matmul for CUDA: few rows are multiplied with the blocks where they lie, many with numbers made of them.

With few rows, as in decoding, reading the weight is all that takes time. From `MANY_ROWS` on the matrix units are worth
a weight in floating point, made for the product and dropped after it.
"""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, program
from ..dequantize.cuda import FORMATS, dequantize
from ..products import matmul
from ..registry import array_module, register

MANY_ROWS = 17  # two launches' worth of ROWS rows and one more
_ROWS = 8  # of x in registers at a time
_WARPS = 4


@register("quantized_matmul", name="cuda", device="cuda", dtypes=DTYPES)
def quantized_matmul(x, blocks, *, format):
    xp = array_module(x)
    x, blocks = contiguous(xp, x, blocks)
    length, outputs = x.shape[-1], len(blocks)
    rows = x.size // max(length, 1)
    if rows >= MANY_ROWS:
        weight = dequantize(blocks, format=format, dtype=x.dtype)
        return matmul(x.reshape(rows, length), weight.T).reshape(*x.shape[:-1], outputs)
    y = xp.zeros((*x.shape[:-1], outputs), x.dtype)
    at_a_time = 1 if rows == 1 else _ROWS
    compiled = program(__file__, "quantized.cu", x.dtype, FORMAT=FORMATS[format], ROWS=at_a_time)
    sizes = np.int32(rows), np.int32(length), np.int32(outputs)
    grid = -(-outputs // _WARPS), -(-rows // at_a_time) if length else 0
    compiled.kernel("quantized_matmul")(grid, 32 * _WARPS, (x, blocks, y, *sizes))
    return y
