"""How this package compiles for the CPU: one decorator, so that every Numba kernel has the same flags."""

from __future__ import annotations

import numba

from . import pool
from .cache import kernel_cache

__all__ = ["AS_WRITTEN", "FAST_MATH", "jit", "only_for", "prange"]

# What LLVM may assume: sums may be reordered and multiply-adds contracted, so that loops vectorise. Not `nnan` or
# `ninf`: a NaN that enters a kernel must leave it, and a masked score may be as low as it likes.
FAST_MATH = {"reassoc", "contract", "nsz", "arcp", "afn"}
AS_WRITTEN = {"contract"}  # where rounding must happen as written

prange = numba.prange

pool.install()


def jit(function=None, *, parallel: bool = False, inline: bool = False, fastmath: set[str] = FAST_MATH):
    """Compiles `function` at its first call and caches the machine code on disk (see `cache.py`).

    `parallel=True` runs `prange` loops on all threads; `inline=True` is for what only other kernels call: it becomes a
    part of them, and can't be called from Python.
    """

    def decorate(function):
        kernel = numba.njit(
            nogil=True,
            error_model="numpy",
            fastmath=fastmath,
            parallel=parallel,
            forceinline=inline,
            no_cpython_wrapper=inline,  # a quarter of the compile time, with the next one
            no_cfunc_wrapper=True,
        )(function)
        if not inline:
            kernel._cache = kernel_cache(function)
        return kernel

    return decorate if function is None else decorate(function)


def only_for(*argument_types):
    """Decorator: compiles a kernel for these types alone, instead of anew for each set of constants in the calls."""

    def decorate(kernel):
        kernel.compile(argument_types)
        kernel.disable_compile()
        return kernel

    return decorate
