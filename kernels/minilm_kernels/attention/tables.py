"""A modifier's table: where its arrays lie, as integers that every compiled kernel can pass on."""

from __future__ import annotations

import numpy as np
from numba import carray

from ..array_table import pointer
from ..jit import jit

__all__ = ["MASKS_ONLY", "NO_GRADIENT", "TABLE", "address_of", "floats_at", "ints_at", "strided", "uncounted"]

TABLE = 64  # integers a modifier has for the addresses, shapes and strides of its arrays
# The last two are 1 for a modifier that changes nothing where no mask is, or no gradient: it need not be called then.
MASKS_ONLY, NO_GRADIENT = TABLE - 1, TABLE - 2


def strided(array: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    """[address, *steps in elements] of `array` broadcast to `shape`: zero where one element serves a whole axis."""
    wide = np.broadcast_to(array, shape)
    return [wide.ctypes.data, *(step // array.itemsize for step in wide.strides)]


def address_of(kernel, argument_types) -> int:
    """Where the machine code of a kernel for these types is, compiled if need be."""
    kernel.compile(argument_types)
    compiled = kernel.overloads[argument_types]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


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
