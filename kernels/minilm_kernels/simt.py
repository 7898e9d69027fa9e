"""numba.cuda for the kernels that are written in it: the only module that imports it.

With NUMBA_ENABLE_CUDASIM=1 in the environment before numba is imported, its simulator runs them without a GPU, on NumPy
arrays, each CUDA thread one of Python's: slowly, and with every `print` and debugger that Python has.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import cache

from .registry import array_module

__all__ = ["DEVICE", "SIMULATED", "argument_types", "device_function", "launch", "problem"]

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
DEVICE = "cpu" if SIMULATED else "cuda"  # whose arrays the kernels take


@cache
def problem() -> str | None:
    """Why kernels in numba.cuda can't be compiled; None if they can."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "it needs numba-cuda, which is not installed: pip install 'minilm[cuda13]', or [cuda12]"
    if SIMULATED:
        return None
    from numba.cuda.cudadrv import nvvm

    try:
        nvvm.NVVM()
    except nvvm.NvvmSupportError as error:
        return f"numba-cuda finds no NVVM to compile with ({error}): pip install nvidia-nvvm, or set CUDA_HOME"
    return None


def __getattr__(name: str):
    if name == "cuda":  # half a second to import, and not everywhere installed
        from numba import cuda

        return cuda
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def device_function(function):
    """Decorator: a function that kernels call."""
    from numba import cuda

    return cuda.jit(function, device=True)


def argument_types(arguments) -> tuple:
    """Numba's types of what `launch` passes on: arrays of any strides, so that one compiled kernel takes them all."""
    from numba import types
    from numba.np.numpy_support import from_dtype

    return tuple(types.Array(from_dtype(x.dtype), x.ndim, "A") if x.ndim else from_dtype(x.dtype) for x in arguments)


def launch(function, blocks: int, threads: tuple[int, int], *arguments) -> None:
    """Runs `function` in all threads of `blocks` blocks, on CuPy's current stream; returns before they are done.

    The arguments are arrays and NumPy's scalars. Arrays are lent without the synchronisation that Numba has for those
    of other libraries: they come from this stream. It is compiled at its first use with arguments of these types.
    """
    from numba import cuda

    configured = _compiled(function, argument_types(arguments))
    if SIMULATED:
        lent = cuda.cudadrv.devicearray.FakeCUDAArray
        configured[blocks, threads](*(lent(x) if x.ndim else x for x in arguments))
        return
    stream = cuda.external_stream(array_module(arguments[0]).cuda.get_current_stream().ptr)
    with warnings.catch_warnings():  # Numba has an opinion on few blocks; a short sequence has no more
        warnings.filterwarnings("ignore", message="Grid size")
        configured = configured[blocks, threads, stream]
    configured(*(_lent(cuda, x) if x.ndim else x for x in arguments))


@cache
def _compiled(function, types: tuple):
    from numba import cuda, void

    return cuda.jit(void(*types))(function)


def _lent(cuda, array):
    return cuda.from_cuda_array_interface(array.__cuda_array_interface__, owner=array, sync=False)
