"""column_sums for CUDA: a sum for each strip of rows, and `add_strips`, for all who make such sums, of those."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, pack_width, program
from ..cuda.program import device_properties
from ..registry import array_module, register
from ..rows import row_length, rows_in_order

__all__ = ["add_strips", "sums_of_columns"]

_ROWS = 64  # of a strip at least: eight for each of the threads that share a column


@register("column_sums", name="cuda", device="cuda", dtypes=DTYPES)
def column_sums(x):
    return sums_of_columns(x, x.dtype)


def sums_of_columns(x, dtype):
    """The sums (C,) over the rows of x (N, C), made in float32 and rounded to `dtype`, x's own or float32."""
    xp = array_module(x)
    x = rows_in_order(x)
    (rows, columns), row = x.shape, row_length(x)
    width = pack_width(row, x)
    blocks = -(-columns // (32 * width))
    strips = max(1, min(-(-rows // _ROWS), 4 * device_properties().multiprocessors // max(blocks, 1)))
    sums = xp.empty((strips, columns), np.float32)
    kernel = program(__file__, "column_sums.cu", x.dtype, WIDTH=width).kernel("sums_of_strips")
    sizes = np.int32(rows), np.int32(columns), np.int64(row), np.int32(-(-rows // strips))
    kernel((blocks, strips), (32, 8), (x, sums, *sizes))
    return add_strips(sums, dtype)


def add_strips(sums, dtype):
    """The sums (columns,) of `dtype` over the rows of a float32 matrix (strips, columns), always in one order."""
    strips, columns = sums.shape
    out = array_module(sums).empty(columns, dtype)
    kernel = program(__file__, "column_sums.cu", out.dtype, WIDTH=1).kernel("add_strips")
    kernel(-(-columns // 32), (32, 16), (sums, out, np.int32(strips), np.int32(columns)))
    return out
