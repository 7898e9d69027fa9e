"""What the host side of CUDA kernels shares: packs that fit the arrays, blocks that fit rows, programs by dtype."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .program import Program, scalar_name

__all__ = [
    "DTYPES",
    "PACK_BYTES",
    "address",
    "contiguous",
    "launch_flat",
    "pack_width",
    "program",
    "row_threads",
    "same_phase",
]

PACK_BYTES = 16  # of one load or store
DTYPES = "float32", "float16", "bfloat16"  # that every kernel takes, if it doesn't say otherwise


@lru_cache(maxsize=512)
def program(beside: str, source: str, dtype, **defines) -> Program:
    """The program of a source for arrays of `dtype` (its macro SCALAR) and further macros: one object for each."""
    return Program(beside, source, {"SCALAR": scalar_name(dtype), **defines})


def address(array) -> int:
    """Where an array's first element lies."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def pack_width(columns: int, *arrays) -> int:
    """How many elements of rows of `columns` a thread can take at a time: a full pack, or one where that does not fit.

    `arrays` are contiguous, or None; the first has the largest elements.
    """
    there = [array for array in arrays if array is not None]
    width = PACK_BYTES // there[0].itemsize
    fits = columns % width == 0 and all(address(array) % PACK_BYTES == 0 for array in there)
    return width if fits else 1


def row_threads(packs: int, most: int = 256) -> int:
    """The threads of a block that works on a row of so many packs: whole warps."""
    return min(most, -(-max(packs, 1) // 32) * 32)


def same_phase(*arrays) -> np.bool_:
    """Whether all arrays, but for those that are None, are as far past a multiple of a pack's bytes as each other."""
    return np.bool_(len({address(array) % PACK_BYTES for array in arrays if array is not None}) <= 1)


def launch_flat(kernel, count: int, width: int, args: tuple) -> None:
    """Launches a kernel of blocks of 256 threads for `count` elements, `width` a thread; its last argument is count."""
    kernel(-(-count // (256 * width)), 256, (*args, np.int64(count)))


def contiguous(xp, *arrays) -> tuple:
    """The arrays in C order, copied where they are not; None stays."""
    return tuple([None if array is None else xp.ascontiguousarray(array) for array in arrays])
