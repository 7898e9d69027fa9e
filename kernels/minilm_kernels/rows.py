"""Matrices with gaps between their rows: what kernels and cuBLAS read in place, and write fastest."""

from __future__ import annotations

import numpy as np

from .registry import array_module

__all__ = ["empty_rows", "row_length", "rows_are_whole", "rows_in_order"]

_ALIGNMENT = 16  # bytes


def rows_are_whole(x) -> bool:
    """Whether the numbers of each row of x (N, C) lie side by side, and the rows in order, with gaps or without."""
    (down, along), size = x.strides, x.itemsize
    return (along == size or x.shape[1] == 1) and (len(x) <= 1 or (down >= x.shape[1] * size and down % size == 0))


def rows_in_order(x):
    """x (N, C), copied unless its rows are whole."""
    return x if rows_are_whole(x) else array_module(x).ascontiguousarray(x)


def row_length(x) -> int:
    """How many numbers after each other the rows of x (N, C) begin, where they are whole."""
    return x.strides[0] // x.itemsize if len(x) > 1 else x.shape[1]


def empty_rows(xp, rows: int, columns: int, dtype):
    """An array (rows, columns) without values, each row of which begins at a multiple of 16 bytes.

    Tensor cores' fastest loads read no others: there are gaps between the rows if need be.
    """
    gap = -columns % (_ALIGNMENT // np.dtype(dtype).itemsize) if rows > 1 else 0
    return xp.empty((rows, columns + gap), dtype)[:, :columns]
