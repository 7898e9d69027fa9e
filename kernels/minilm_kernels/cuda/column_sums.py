"""The last step of sums over rows that were made a strip of rows a block."""

from __future__ import annotations

import numpy as np

from ..registry import array_module
from .launching import program

__all__ = ["column_sums"]


def column_sums(sums, dtype):
    """The sums (columns,) of `dtype` over the rows of a float32 matrix (rows, columns), always in one order."""
    rows, columns = sums.shape
    out = array_module(sums).empty(columns, dtype)
    kernel = program(__file__, "column_sums.cu", out.dtype).kernel("column_sums")
    kernel(-(-columns // 32), (32, 8), (sums, out, np.int32(rows), np.int32(columns)))
    return out
