"""A modifier's table: where its arrays lie, as integers that every compiled kernel can pass on."""

from __future__ import annotations

import numpy as np
from numba import carray, types

from ..array_table import pointer
from ..jit import jit

__all__ = ["GRADIENT_TYPES", "MODIFY_TYPES", "floats_at", "forwards", "ints_at", "strided", "uncounted"]

_SCRATCH, _TABLE = types.Array(types.float32, 1, "C"), types.Array(types.int64, 1, "C")
# modify(scratch, offset, width, b, h, t, j, masked, table); modify_gradient(scratch, score, gradient, width, ...)
MODIFY_TYPES = (_SCRATCH, *[types.int64] * 6, types.boolean, _TABLE)
GRADIENT_TYPES = (_SCRATCH, *[types.int64] * 7, _TABLE)


def forwards(array: np.ndarray) -> np.ndarray:
    """`array`, or a copy where an axis runs backwards or between elements: a table's rows are read ahead, in wholes."""
    return array if array.flags.aligned and min(array.strides, default=0) >= 0 else np.ascontiguousarray(array)


def strided(array: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    """[address, *steps in elements] of `array` broadcast to `shape`: zero where one element serves a whole axis."""
    wide = np.broadcast_to(array, shape)
    return [wide.ctypes.data, *(step // array.itemsize for step in wide.strides)]


@jit(inline=True)
def uncounted(tables):
    """The same tables without their owner: threads that took rows of them would wait for each other to count them."""
    return carray(pointer(tables.ctypes.data), tables.shape, np.int64)


@jit(inline=True)
def floats_at(address, offset, count):
    """`count` float32 numbers, the first `offset` elements after the one at `address`."""
    return carray(pointer(address + offset * 4), (count,), np.float32)


@jit(inline=True)
def ints_at(address, offset, count):
    """`count` int64 numbers, likewise."""
    return carray(pointer(address + offset * 8), (count,), np.int64)
