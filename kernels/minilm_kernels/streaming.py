"""Stores that go past the cache, for results too large to be found there by whoever reads them.

An ordinary store first reads the cache line that it is about to overwrite: a third of an elementwise kernel's traffic.
A kernel that streams computes a row into a piece of memory in the first cache, and hands that to `stream`.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .jit import jit

__all__ = ["empty_rows", "stream"]

# Bytes of a result from which it is streamed: more than a core's own caches hold.
_LEAST = 2**23
_LINE = 64  # bytes of a cache line; one that is streamed in two halves costs more than an ordinary store
_BYTES = 32
_VECTOR = ir.VectorType(ir.IntType(32), _BYTES // 4)


def empty_rows(shape: tuple[int, ...], dtype) -> tuple[np.ndarray, bool]:
    """An array whose rows a kernel is to fill, and whether it is large, and its rows lie so, that they be streamed."""
    size = math.prod(shape) * dtype.itemsize
    if size < _LEAST or shape[-1] * dtype.itemsize % _LINE:
        return np.empty(shape, dtype), False
    memory = np.empty(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size].view(dtype).reshape(shape), True


@intrinsic
def _stream_vector(typingctx, source, target, offset):
    """Copies 32 bytes from element `offset` of `source` to that of `target`, which lies on a multiple of 32 bytes."""

    def codegen(context, builder, signature, args):
        def pointer(i):
            data = context.make_array(signature.args[i])(context, builder, args[i]).data
            return builder.bitcast(builder.gep(data, [args[2]]), _VECTOR.as_pointer())

        stored = builder.store(builder.load(pointer(0), align=4), pointer(1), align=_BYTES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(source, target, types.intp), codegen


@jit(inline=True)
def stream(source, target):
    """Copies a row to one of `empty_rows`, past the cache."""
    for i in range(0, target.size, _BYTES // target.itemsize):
        _stream_vector(source, target, i)
