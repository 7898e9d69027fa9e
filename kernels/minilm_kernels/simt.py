"""numba.cuda for the kernels that are written in it: the only module that imports it.

With NUMBA_ENABLE_CUDASIM=1 in the environment before numba is imported, its simulator runs them without a GPU, on NumPy
arrays, each CUDA thread one of Python's: slowly, and with every `print` and debugger that Python has.
"""

from __future__ import annotations

import importlib.util
import os
import warnings

from .registry import array_module

__all__ = ["DEVICE", "SIMULATED", "device_function", "kernel", "launch", "problem"]

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
DEVICE = "cpu" if SIMULATED else "cuda"  # whose arrays the kernels take


def problem() -> str | None:
    """Why kernels in numba.cuda can't be compiled; None if they can."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "it needs numba-cuda, which is not installed: pip install 'minilm[cuda13]', or [cuda12]"
    return None


def __getattr__(name: str):
    if name == "cuda":  # half a second to import, and not everywhere installed
        from numba import cuda

        return cuda
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def kernel(function):
    """Decorator: a function that `launch` runs in every thread of a grid."""
    from numba import cuda

    return cuda.jit(function)


def device_function(function):
    """Decorator: a function that kernels call."""
    from numba import cuda

    return cuda.jit(function, device=True)


def launch(function, blocks: int, threads: tuple[int, int], *arguments) -> None:
    """Runs a kernel on `blocks` blocks of so many threads, on CuPy's current stream; it returns before they are done.

    Arrays are lent without the synchronisation that Numba has for those of other libraries: they come from this stream.
    """
    from numba import cuda

    if SIMULATED:
        lent = cuda.cudadrv.devicearray.FakeCUDAArray
        function[blocks, threads](*(lent(x) if _is_array(x) else x for x in arguments))
        return
    cupy = array_module(next(x for x in arguments if _is_array(x)))
    stream = cuda.external_stream(cupy.cuda.get_current_stream().ptr)
    with warnings.catch_warnings():  # Numba has an opinion on few blocks; a short sequence has no more
        warnings.filterwarnings("ignore", message="Grid size")
        configured = function[blocks, threads, stream]
    configured(*(_lent(cuda, x) if _is_array(x) else x for x in arguments))


def _lent(cuda, array):
    return cuda.from_cuda_array_interface(array.__cuda_array_interface__, owner=array, sync=False)


def _is_array(x) -> bool:
    return getattr(x, "ndim", 0) > 0
