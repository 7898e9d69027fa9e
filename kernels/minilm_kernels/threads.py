"""One pool of threads for NumPy's matrix products and for these kernels.

A training step goes back and forth between the two. With a pool each, the idle one's threads spin for a while in case
work comes, on the cores that the other one needs; sent to sleep at once instead, they have to be woken for each of a
hundred short products. OpenBLAS can hand its jobs to threads that are not its own
(`openblas_set_threads_callback_function`), so here it is given Numba's, which are OpenMP's.

Changes no result: the jobs are OpenBLAS's own, and their number stays as it was.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["share_with_blas"]

_SUFFIX = "64_"  # of the names in the OpenBLAS that NumPy's wheels bring


def _bundled_openblas() -> ctypes.CDLL | None:
    """The OpenBLAS that NumPy has loaded, if it is the one of its wheels and can take a callback."""
    for path in Path(np.__file__).parent.parent.glob("numpy.libs/libscipy_openblas64_*.so*"):
        library = ctypes.CDLL(str(path))
        if hasattr(library, f"scipy_openblas_set_threads_callback_function{_SUFFIX}"):
            return library
    return None


_library = _bundled_openblas()

# How long OpenMP's threads spin before they sleep: a few milliseconds, enough for the Python between two operations;
# not at all beside another BLAS, whose threads they would take the cores from. Read when OpenMP is loaded, at the first
# parallel launch; a value set outside is kept.
os.environ.setdefault("GOMP_SPINCOUNT", "200000" if _library is not None else "0")
numba.get_num_threads()  # starts Numba's threads, and makes its functions below known to the linker


@intrinsic
def _run_job(typingctx, job, number, data, extra):
    """Calls OpenBLAS's `void job(int number, void *data, int extra)` at an address."""

    def codegen(context, builder, signature, args):
        integer, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [integer, pointer, integer]).as_pointer()
        address, number, data, extra = args
        arguments = [builder.trunc(number, integer), builder.inttoptr(data, pointer), builder.trunc(extra, integer)]
        builder.call(builder.inttoptr(address, function), arguments)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def _get_threads(typingctx):
    """`numba.get_num_threads()`, by its name for the linker: Numba's own way can't be cached on disk."""

    def codegen(context, builder, signature, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.IntType(64), []), "get_num_threads"
        )
        return builder.call(function, [])

    return types.int64(), codegen


@intrinsic
def _set_threads(typingctx, count):
    """`numba.set_num_threads(count)`, likewise."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
        function = cgutils.get_or_insert_function(builder.module, kind, "set_num_threads")
        builder.call(function, [builder.trunc(args[0], ir.IntType(32))])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@numba.njit("void(int64, int64, int64, int64, int64)", parallel=True, cache=True, nogil=True)
def _run_jobs(job, count, size, data, extra):
    # The jobs wait for one another, so each needs a thread of its own: there are as many as jobs, in this launch.
    threads = _get_threads()
    if threads < count:
        _set_threads(count)
    for i in numba.prange(count):
        _run_job(job, np.int64(i), data + np.int64(i) * size, extra)
    if threads < count:
        _set_threads(threads)


@numba.cfunc("void(int32, intp, int32, uintp, intp, int32)", cache=True)
def _callback(sync, job, count, size, data, extra):
    _run_jobs(np.int64(job), np.int64(count), np.int64(size), np.int64(data), np.int64(extra))


def share_with_blas() -> bool:
    """Has NumPy's OpenBLAS run its jobs on Numba's threads; True where that is possible.

    It needs the OpenBLAS of NumPy's wheels and Numba's "omp" threading layer, and leaves everything else alone. A
    forked child goes back to OpenBLAS's own threads, since OpenMP's do not survive a fork.
    """
    if _library is None or numba.threading_layer() != "omp":
        return False
    set_callback = getattr(_library, f"scipy_openblas_set_threads_callback_function{_SUFFIX}")
    set_callback.argtypes, set_callback.restype = [ctypes.c_void_p], None
    get_threads = getattr(_library, f"scipy_openblas_get_num_threads{_SUFFIX}")
    if get_threads() > numba.config.NUMBA_NUM_THREADS:
        getattr(_library, f"scipy_openblas_set_num_threads{_SUFFIX}")(numba.config.NUMBA_NUM_THREADS)
    set_callback(_callback.address)
    os.register_at_fork(after_in_child=lambda: set_callback(None))
    return True
