"""Copies to the GPU that overlap with what it computes."""

from __future__ import annotations

import numpy as np

__all__ = ["Uploader"]


class Uploader:
    """Copies host arrays to `device` from pinned memory, on a stream of its own; on the CPU it hands them through.

    `start(arrays)` queues the copies and returns a token, `finish(token)` the arrays, which whatever is queued after it
    waits for: the host doesn't. `ahead` tokens may be unfinished at a time, and the arrays are to be used up, as after
    a look at a result of theirs, before the next are finished. To be called by one thread at a time.

    >>> uploader = Uploader("cpu")
    >>> uploader.finish(uploader.start((np.arange(3),)))
    (array([0, 1, 2]),)
    """

    def __init__(self, device: str, ahead: int = 2) -> None:
        self.device = device
        self._slots: list[list] = [[None, None] for _ in range(ahead + 1)]  # pinned buffers, and when they are free
        self._next = 0
        self._stream = None

    def start(self, arrays: tuple[np.ndarray, ...]):
        """Queues the copies, and returns what `finish` wants."""
        if self.device == "cpu":
            return arrays
        import cupy

        if self._stream is None:
            self._stream = cupy.cuda.Stream(non_blocking=True)
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot[1] is not None:
            slot[1].synchronize()  # that copy was queued long ago
        if slot[0] is None or any(p.shape != x.shape or p.dtype != x.dtype for p, x in zip(slot[0], arrays)):
            slot[0] = tuple(_pinned(cupy, x.shape, x.dtype) for x in arrays)
        with self._stream:
            there = []
            for pinned, x in zip(slot[0], arrays):
                pinned[...] = x
                there.append(cupy.empty(x.shape, x.dtype))
                there[-1].set(pinned, stream=self._stream)
            slot[1] = self._stream.record()
        return tuple(there), slot[1]

    def finish(self, token) -> tuple:
        """The arrays of a `start`, on the device, for the current stream."""
        if self.device == "cpu":
            return token
        import cupy

        arrays, done = token
        cupy.cuda.get_current_stream().wait_event(done)
        return arrays


def _pinned(cupy, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An empty host array that the GPU can read by itself."""
    count = int(np.prod(shape))
    memory = cupy.cuda.alloc_pinned_memory(max(count, 1) * dtype.itemsize)
    return np.frombuffer(memory, dtype, count).reshape(shape)
