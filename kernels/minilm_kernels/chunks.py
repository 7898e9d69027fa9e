"""How a kernel's work is cut into parts: always the same way, whatever the number of threads, so that results are too.

Two more things decide whether a Numba loop over a part is fast: the part is sliced first and indexed from zero
(an index that might be negative costs a wrap-around each element), and small work never starts a thread.
"""

from __future__ import annotations

import numpy as np

from .jit import jit

__all__ = ["PARTS", "SERIAL_BELOW", "bounds", "contiguous_rows", "parts_for"]

PARTS = 64
# Elements below which one thread is done before a second, woken from its sleep (20 microseconds), would have helped.
SERIAL_BELOW = 49152


@jit(inline=True)
def bounds(part, parts, n):
    """First and one past last of part number `part` when `n` items are cut into `parts` nearly equal parts."""
    part = np.int64(part)
    return part * n // parts, (part + 1) * n // parts


def parts_for(work: int) -> int:
    """Into how many parts to cut work on so many elements: one, which starts no thread, where they are few."""
    return PARTS if work >= SERIAL_BELOW else 1


def contiguous_rows(array: np.ndarray) -> np.ndarray:
    """`array` (..., C) as a C-contiguous (N, C): a view, or a copy where its layout asks for one."""
    array = np.ascontiguousarray(array)
    return array if array.ndim == 2 else array.reshape(array.size // max(array.shape[-1], 1), array.shape[-1])
