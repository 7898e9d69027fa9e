"""A stand-in for CuPy on a machine without a GPU: NumPy's arithmetic with CuPy's manners.

Its arrays are not NumPy's, and are as strict as CuPy's: they refuse to mix with arrays of the host, reductions to
a number stay arrays, indices out of range wrap around, dtypes are promoted by CuPy's loops, and functions take the
arguments that CuPy's take and no others (`api.json`, recorded from it). Products that go to cuBLAS are computed
from the very addresses, strides and leading dimensions that cuBLAS would get. So code that runs on it runs on CuPy, as
far as that can be told without a card; how fast, and in which order sums are added, it does not say.

    with fake_cupy.installed() as cupy:
        x = cupy.asarray(np.ones(3))
"""

from __future__ import annotations

import contextlib
import math
import sys
import types
from collections.abc import Iterator
from unittest import mock

import numpy as np

from . import cublas, operators  # noqa: F401 - the arrays have their operators from there
from .arrays import ndarray
from .functions import API, table
from .transfers import transfers
from .ufuncs import Ufunc

__all__ = ["installed", "transfers"]


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        self._size, self._total, self._limit = size, total, limit
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class Stream:
    """A queue of work that is done at once, so that there is nothing to wait for.

    What it captures is done at once, too: under CuPy's rules for it, but without being there to be repeated.
    """

    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = id(self) if non_blocking else 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_) -> None:
        pass

    def record(self) -> Stream:
        return self

    def synchronize(self) -> None:
        transfers.refuse("waits")

    def wait_event(self, event: Stream) -> None:
        pass

    def begin_capture(self) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        transfers.capturing = True

    def end_capture(self) -> Graph:
        transfers.capturing = False
        return Graph()


class Graph:
    """What was captured, and so done already: the first launch has nothing to do."""

    launches = 0

    def launch(self, stream: Stream) -> None:
        self.launches += 1
        if self.launches > 1:
            raise RuntimeError("the stand-in can't do again what was captured")


class _Pool:
    """A memory pool that says what it is told to."""

    used, total, free_blocks = 0, 0, 0

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.total

    def malloc(self, size: int) -> bytearray:
        return bytearray(size)

    def free_bytes(self) -> int:
        return self.total - self.used

    def free_all_blocks(self) -> None:
        self.total = self.used


def _modules() -> dict[str, types.ModuleType]:
    """The modules `cupy`, `cupyx` and the parts of them that the library asks for, by name."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    cupy.ndarray, cupy.ufunc = ndarray, Ufunc
    for name in API["numpy"].split():
        setattr(cupy, name, getattr(np, name))
    for name, function in table().items():
        if not name.startswith("_"):
            setattr(cupy, name, function)
    pool = _Pool()
    cupy.get_default_memory_pool = lambda: pool
    cupy.get_default_pinned_memory_pool = _Pool
    stream = Stream()
    device = types.SimpleNamespace(get_cublas_handle=lambda: 1, get_compute_capability=lambda: "90")
    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDevice=lambda: 0,
        setDevice=lambda number: None,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda i: {"name": b"Stand-in", "major": 9, "minor": 0, "totalGlobalMem": 80 * 2**30},
        memGetInfo=lambda: (79 * 2**30, 80 * 2**30),
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13000,
    )
    cuda = types.ModuleType("cupy.cuda")
    cuda.device, cuda.runtime, cuda.get_current_stream = device, runtime, lambda: stream
    cuda.Stream, cuda.MemoryPool, cuda.alloc_pinned_memory = Stream, _Pool, bytearray
    cuda.using_allocator = lambda allocator: contextlib.nullcontext()
    cuda.set_pinned_memory_allocator = lambda allocator: None
    cuda.memory = types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    cupy.cuda = cuda
    libraries = types.ModuleType("cupy_backends.cuda.libs")
    libraries.cublas = cublas
    special = types.ModuleType("cupyx.scipy.special")
    special.erf = Ufunc("erf", API["ufuncs"]["erf"], _erf)
    found = {"cupy": cupy, "cupy.cuda": cuda, "cupy_backends.cuda.libs": libraries, "cupyx.scipy.special": special}
    for name in ("cupy_backends", "cupy_backends.cuda", "cupyx", "cupyx.scipy"):
        found[name] = types.ModuleType(name)
    return found


def _erf(x):
    return np.vectorize(math.erf, otypes=[np.float64])(x)


@contextlib.contextmanager
def installed() -> Iterator[types.ModuleType]:
    """Within it `import cupy` gives the stand-in; of the kernels' implementations only the references run on it."""
    from minilm_kernels import products, registry

    from minilm.backend import graph

    modules = _modules()
    candidates = registry._candidates

    def references(operation, implementation, device, dtype):
        found = candidates(operation, implementation, device, dtype)
        return tuple(entry for entry in found if entry.device == "any") if device == "cuda" else found

    references.cache_clear = candidates.cache_clear
    transfers.fetched, transfers.sent, transfers.capturing = 0, 0, False
    cublas.calls.clear()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        with (
            mock.patch.object(registry, "_candidates", references),
            mock.patch.object(products, "recordable", return_value=cublas.recordable),
            mock.patch.object(graph, "recordable", return_value=cublas.recordable),
        ):
            yield modules["cupy"]
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
