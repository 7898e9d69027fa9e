"""How this package compiles for the CPU: one decorator, so that every Numba kernel has the same flags."""

from __future__ import annotations

import numba

from .threads import share_with_blas

__all__ = ["FAST_MATH", "jit", "prange"]

# What LLVM may assume: sums may be reordered and multiply-adds contracted, so that loops vectorise. Not `nnan` or
# `ninf`: a NaN that enters a kernel must leave it, and a masked score may be as low as it likes.
FAST_MATH = {"reassoc", "contract", "nsz", "arcp", "afn"}

prange = numba.prange

share_with_blas()


def jit(function=None, *, parallel: bool = False, inline: bool = False):
    """Compiles `function` at its first call and caches the machine code on disk.

    `parallel=True` runs `prange` loops on all threads; `inline=True` is for small helpers of other kernels.
    """
    decorate = numba.njit(
        cache=True, nogil=True, error_model="numpy", fastmath=FAST_MATH, parallel=parallel, forceinline=inline
    )
    return decorate if function is None else decorate(function)
