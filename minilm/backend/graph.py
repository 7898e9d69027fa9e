"""A function of arrays as one CUDA graph: recorded once, then launched as a whole, so that the host keeps up."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
from minilm_kernels.cublas import recordable
from minilm_kernels.recording import recording

from .arrays import array_module, to_device

__all__ = ["CaptureError", "Graph"]


class CaptureError(RuntimeError):
    """Something in a function needs the host at each call, so that it can't be recorded."""


class Graph:
    """`function(*arrays)` on `device`, called with host or device arrays that are always of the same shapes and dtypes.

    The arrays are copied into buffers that stay where they are, of which the function makes its results. On a GPU the
    first `warmup` calls run it, on a stream and with a memory pool of their own; the next one records what it launches
    as a CUDA graph, and from then on only that is launched. So what else it does, in Python, happens at recording and
    never again: whatever differs from call to call has to come in by the arrays, and the function may not look at
    results, copy from or to the host, or draw
    random numbers (`Seeds` are a way). Where it does, `refused` says so, and it is run as ever.
    On the CPU it is run each time. The results are the same arrays at each call: copy what is to be kept.

    >>> double = Graph(lambda x: 2 * x, "cpu")
    >>> double(np.ones(2)), double(np.full(2, 3.0))
    (array([2., 2.]), array([6., 6.]))
    """

    def __init__(self, function: Callable, device: str, warmup: int = 2) -> None:
        self.function, self.device, self.warmup = function, device, warmup
        self.refused: str | None = None
        self._buffers: tuple | None = None
        self._calls = 0
        self._graph = self._out = self._needed = self._stream = self._pool = None

    @property
    def is_recorded(self) -> bool:
        """Whether calls launch a recorded graph."""
        return self._graph is not None

    def fits(self, *arrays) -> bool:
        """Whether arrays like these can be the arguments: nothing was called yet, or they are like those of then."""
        alike = zip(arrays, self._buffers or arrays)
        return all(x.shape == buffer.shape and x.dtype == buffer.dtype for x, buffer in alike)

    def __call__(self, *arrays):
        """The function's results. ValueError for arrays unlike those of the first call."""
        if not self.fits(*arrays):
            wanted, given = ([(x.shape, x.dtype.name) for x in group] for group in (self._buffers, arrays))
            raise ValueError(f"a graph's arrays keep their shapes and dtypes; it was made for {wanted} and got {given}")
        if self._buffers is None:
            self._buffers = tuple(_copy(x, self.device) for x in arrays)
        self._calls += 1
        if self.device == "cpu":
            for buffer, x in zip(self._buffers, arrays):
                buffer[...] = x
            return self.function(*self._buffers)
        return self._on_cuda(arrays)

    def _on_cuda(self, arrays: tuple):
        import cupy

        if self._stream is None:
            self._stream, self._pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
            cupy.get_default_memory_pool().free_all_blocks()  # what earlier calls left there can't be had from here
        stream, outside = self._stream, cupy.cuda.get_current_stream()
        stream.wait_event(outside.record())
        with stream:
            for buffer, x in zip(self._buffers, arrays):
                if isinstance(x, np.ndarray):
                    buffer.set(x, stream=stream)
                else:
                    buffer[...] = x
            if self._graph is None and self.refused is None and self._calls > self.warmup:
                self._record(cupy)
            if self._graph is not None:
                self._graph.launch(stream)
                out = self._out
            else:
                with cupy.cuda.using_allocator(self._pool.malloc):
                    out = self.function(*self._buffers)
        outside.wait_event(stream.record())
        return out

    def _record(self, cupy) -> None:
        """Records the function; where that fails, `refused` gets the reason."""
        try:
            cupy.cuda.device.get_cublas_handle()
            recordable()  # while memory can be had
        except RuntimeError as caught:
            self.refused = str(caught)
            return
        gc.collect()
        gc.disable()  # what it would free in between may belong to the driver
        out = error = None
        pinned = cupy.get_default_pinned_memory_pool().malloc
        cupy.cuda.set_pinned_memory_allocator(_no_copies_from_the_host(pinned))
        self._stream.begin_capture()
        try:
            with cupy.cuda.using_allocator(self._pool.malloc), recording() as needed:
                out = self.function(*self._buffers)
        except Exception as caught:  # CuPy's, the driver's, a kernel's: whatever it is, there is another way
            error = caught
        try:
            graph = self._stream.end_capture()
        except Exception as caught:  # an error in between ends the recording
            graph, error = None, error or caught
        finally:
            cupy.cuda.set_pinned_memory_allocator(pinned)
            gc.enable()
        if error is None:
            self._graph, self._out, self._needed = graph, out, needed
        else:
            self.refused = f"{type(error).__name__}: {error}"


def _no_copies_from_the_host(allocate: Callable) -> Callable:
    """What lends pinned memory to other threads, which may make batches ready, and refuses it to this one."""
    recorder = threading.get_ident()

    def lend(size: int):
        if threading.get_ident() == recorder:
            raise CaptureError("it copies an array from the host, whose memory would be another's at the next call")
        return allocate(size)

    return lend


def _copy(array, device: str):
    there = to_device(array, device)
    return there.copy() if array_module(there) is array_module(array) else there
