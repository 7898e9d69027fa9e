"""Tensor maps: how the copy engine of Hopper is told where a tensor lies and which boxes of it will be copied."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

__all__ = ["can_map", "tensor_map"]

ALIGNMENT = 16  # bytes, of a tensor's address and of every stride but the last
PANEL = 64  # columns of 16 bits to a box: the 128 bytes in which shared memory is swizzled
_BYTES = 128  # of a map
_TYPES = {"float16": 6, "bfloat16": 9}  # CU_TENSOR_MAP_DATA_TYPE_...
_NO_INTERLEAVE, _SWIZZLE_128B, _L2_PROMOTION_256B, _FILL_WITH_ZEROS = 0, 3, 3, 0


def can_map(array) -> bool:
    """Whether the copy engine can read an array where it lies: its rows dense, all else a multiple of 16 bytes."""
    outer = [stride for stride, size in zip(array.strides[:-1], array.shape[:-1]) if size > 1]
    return (
        array.strides[-1] == array.itemsize
        and all(stride > 0 and stride % ALIGNMENT == 0 for stride in outer)
        and _address(array) % ALIGNMENT == 0
    )


def tensor_map(array, rows: int) -> np.void:
    """The tensor map of a (B, heads, length, head size) array of 16-bit numbers, for boxes of `rows` rows of one head
    and 64 columns, stored with the 128-byte swizzle (sm90.cuh): an argument for a `const __grid_constant__ TensorMap`.

    What a box has beyond the array's bounds is read as zeros, and not written. ValueError unless `can_map(array)`.
    """
    if not can_map(array):
        raise ValueError(
            f"an array with strides {array.strides} at address {_address(array):#x} can't be read by the copy engine, "
            f"which wants dense rows and multiples of {ALIGNMENT} bytes: make it contiguous"
        )
    sizes = array.shape[::-1]
    strides, extent = [], sizes[0] * array.itemsize
    for stride, size in zip(array.strides[-2::-1], sizes[1:]):
        # That of an axis of length 1 is never used, may be anything, and has to be one that the driver accepts.
        strides.append(stride if size > 1 else -(-extent // ALIGNMENT) * ALIGNMENT)
        extent = strides[-1] * size
    encoded = _encode(_address(array), array.dtype.name, sizes, tuple(strides), (PANEL, rows, 1, 1))
    return np.frombuffer(encoded, np.dtype((np.void, _BYTES)))[0]


@lru_cache(maxsize=256)  # the arrays of a training step have the same addresses at each
def _driver_encode(address: int, dtype: str, sizes: Sequence[int], strides: Sequence[int], box: Sequence[int]) -> bytes:
    """cuTensorMapEncodeTiled; all from the innermost axis on, which has no stride."""
    rank = len(sizes)
    memory = ctypes.create_string_buffer(2 * _BYTES)
    place = -(-ctypes.addressof(memory) // _BYTES) * _BYTES  # drivers ask for an alignment of 64 or of 128 bytes
    status = ctypes.CDLL("libcuda.so.1").cuTensorMapEncodeTiled(
        ctypes.c_void_p(place),
        ctypes.c_int(_TYPES[dtype]),
        ctypes.c_uint32(rank),
        ctypes.c_void_p(address),
        (ctypes.c_uint64 * rank)(*sizes),
        (ctypes.c_uint64 * (rank - 1))(*strides),
        (ctypes.c_uint32 * rank)(*box),
        (ctypes.c_uint32 * rank)(*[1] * rank),
        *map(ctypes.c_int, (_NO_INTERLEAVE, _SWIZZLE_128B, _L2_PROMOTION_256B, _FILL_WITH_ZEROS)),
    )
    if status != 0:
        raise RuntimeError(
            f"the driver made no tensor map of a {dtype} tensor of sizes {tuple(sizes)}, strides {tuple(strides)} and "
            f"boxes {tuple(box)}: error {status}"
        )
    return ctypes.string_at(place, _BYTES)


_encode = _driver_encode  # the tests put the emulator's in its place


def _address(array) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
