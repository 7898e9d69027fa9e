"""cuBLAS while a CUDA graph is recorded, which CuPy's own calls of it refuse: the same functions, by ctypes."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

__all__ = ["Recordable", "recordable"]

_WORKSPACE = 32 * 2**20  # bytes, which cuBLAS's guide recommends for Hopper


class Recordable:
    """`setMathMode`, `gemmEx` and `gemmStridedBatchedEx` with the arguments of cupy_backends' module.

    They run on CuPy's current stream, in a workspace of their own: cuBLAS would else put allocations into the graph.
    """

    def __init__(self, library) -> None:
        import cupy

        p, i, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
        self._set_stream = _function(library, "cublasSetStream_v2", p, p)
        self._set_workspace = _function(library, "cublasSetWorkspace_v2", p, p, ctypes.c_size_t)
        self._set_math_mode = _function(library, "cublasSetMathMode", p, i)
        head = p, i, i, i, i, i, p  # handle, transa, transb, m, n, k, alpha
        one = *head, p, i, i, p, i, i, p, p, i, i, i, i
        many = *head, p, i, i, long, p, i, i, long, p, p, i, i, long, i, i, i
        self.gemmEx = _function(library, "cublasGemmEx", *one)
        self.gemmStridedBatchedEx = _function(library, "cublasGemmStridedBatchedEx", *many)
        self._workspace = cupy.empty(_WORKSPACE, "uint8")

    def setMathMode(self, handle: int, mode: int) -> None:
        """Sets the mode of what follows, and the stream and workspace that it has."""
        import cupy

        self._set_stream(handle, cupy.cuda.get_current_stream().ptr)
        self._set_workspace(handle, self._workspace.data.ptr, _WORKSPACE)
        self._set_math_mode(handle, mode)


@cache
def recordable() -> Recordable:
    """The functions; made before the first recording, for they need memory."""
    loaded = Path("/proc/self/maps").read_text().split()
    path = next((part for part in loaded if "/libcublas.so" in part), None)  # CuPy's handle needed it
    if path is None:
        raise RuntimeError("libcublas.so is not among the libraries that this process has loaded")
    return Recordable(ctypes.CDLL(path))


def _function(library, name: str, *types):
    function = getattr(library, name)
    function.argtypes, function.restype = types, ctypes.c_int

    def call(*args) -> None:
        status = function(*args)
        if status:
            raise RuntimeError(f"{name} returned status {status} (cublasStatus_t) while a graph was recorded")

    return call
