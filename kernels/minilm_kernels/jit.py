"""How this package compiles for the CPU: one decorator, so that every Numba kernel has the same flags."""

from __future__ import annotations

import os

# A training step goes back and forth between NumPy's BLAS and these kernels, each with threads of its own. OpenMP's
# threads spin after a loop unless told to sleep, and then take the cores from BLAS: small steps become five times
# slower. Read by the OpenMP library when it is loaded, at the first parallel launch; a value set outside is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numba

__all__ = ["FAST_MATH", "jit", "prange"]

# What LLVM may assume: sums may be reordered and multiply-adds contracted, so that loops vectorise. Not `nnan` or
# `ninf`: a NaN that enters a kernel must leave it, and a masked score may be as low as it likes.
FAST_MATH = {"reassoc", "contract", "nsz", "arcp", "afn"}

prange = numba.prange


def jit(function=None, *, parallel: bool = False, inline: bool = False):
    """Compiles `function` at its first call and caches the machine code on disk.

    `parallel=True` runs `prange` loops on all threads; `inline=True` is for small helpers of other kernels.
    """
    decorate = numba.njit(
        cache=True, nogil=True, error_model="numpy", fastmath=FAST_MATH, parallel=parallel, forceinline=inline
    )
    return decorate if function is None else decorate(function)
