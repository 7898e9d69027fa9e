"""Many arrays in one kernel launch: their addresses in a table, and the table cut into chunks of one size.

A Numba kernel can't take a list of arrays without copying it element by element; it can take a table of addresses. The
caller keeps the arrays alive while the kernel runs, and has checked that they are contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .jit import jit

__all__ = ["CHUNK", "ArrayTable", "chunk_of", "pointer"]

# Elements a thread works on at a time: some arrays of them fit the second cache; 3,800 chunks in 124 million elements.
CHUNK = 32768


@dataclass(frozen=True)
class ArrayTable:
    """Columns of same-shaped arrays: `addresses` (columns, arrays), and for each chunk its array and first element."""

    addresses: np.ndarray
    sizes: np.ndarray
    owner: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, *columns) -> ArrayTable:
        """The table of lists of contiguous arrays: those at the same place in each list have one size."""
        addresses = np.array([[_address(array.ravel()) for array in arrays] for arrays in columns], np.int64)
        return cls(addresses, *_cut(tuple([array.size for array in columns[0]])))


@lru_cache(maxsize=16)  # an optimiser asks the same at every step
def _cut(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sizes, and each chunk's array and first element, for arrays of these sizes."""
    sizes = np.array(sizes, np.int64)
    chunks = -(-sizes // CHUNK)
    owner = np.repeat(np.arange(len(sizes)), chunks)
    first = (np.arange(len(owner)) - np.repeat(np.cumsum(chunks) - chunks, chunks)) * CHUNK
    for array in (sizes, owner, first):
        array.flags.writeable = False
    return sizes, owner, first


@jit
def _address(array):
    return array.ctypes.data


@intrinsic
def pointer(typingctx, address):
    """An integer as the pointer that it is."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@jit(inline=True)
def chunk_of(addresses, sizes, owner, first, chunk, like):
    """Chunk number `chunk` of the column with these `addresses`, as a vector of the dtype of `like`."""
    array, start = owner[chunk], first[chunk]
    count = min(CHUNK, sizes[array] - start)
    return numba.carray(pointer(np.int64(addresses[array] + start * like.itemsize)), count, like.dtype)
