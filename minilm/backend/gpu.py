"""The GPUs that there are, their memory, and what is said when it runs out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .arrays import cuda_problem

__all__ = ["Gpu", "GpuMemory", "OutOfMemoryError", "gpu_memory", "gpus", "guard_memory", "release_memory"]


@dataclass(frozen=True)
class Gpu:
    """A GPU: what it is called, its compute capability as (9, 0), bytes that it has and that nobody holds."""

    name: str
    capability: tuple[int, int]
    total: int
    free: int

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name}, compute {major}.{minor}, {_size(self.total)} ({_size(self.free)} free)"


def gpus() -> list[Gpu]:
    """The GPUs that can be used, the current one first; none where there is a `cuda_problem()`."""
    if cuda_problem() is not None:
        return []
    from cupy.cuda import runtime

    current, found = runtime.getDevice(), {}
    try:
        for number in range(runtime.getDeviceCount()):
            runtime.setDevice(number)
            about, (free, total) = runtime.getDeviceProperties(number), runtime.memGetInfo()
            found[number] = Gpu(about["name"].decode(), (about["major"], about["minor"]), total, free)
    finally:
        runtime.setDevice(current)
    return [found.pop(current), *found.values()]


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of the current GPU: in arrays (`used`), held by this process (`held`), free for anyone, and all there are.

    CuPy's pool keeps what arrays gave back for the next ones, so what it holds is the most that arrays took together
    since `release_memory()`, and a little more.
    """

    used: int
    held: int
    free: int
    total: int

    @property
    def available(self) -> int:
        """What new arrays can be made of, if it is not in too many pieces."""
        return self.free + self.held - self.used

    def __str__(self) -> str:
        return f"{_size(self.used)} in arrays, {_size(self.held)} held, {_size(self.free)} free of {_size(self.total)}"


def gpu_memory() -> GpuMemory:
    """What the current GPU's memory is in use for. RuntimeError, saying what is missing, where there is none."""
    problem = cuda_problem()
    if problem is not None:
        raise RuntimeError(f"device 'cuda' can't be used here: {problem}")
    import cupy

    pool, (free, total) = cupy.get_default_memory_pool(), cupy.cuda.runtime.memGetInfo()
    return GpuMemory(pool.used_bytes(), pool.total_bytes(), free, total)


def release_memory() -> None:
    """Gives back what CuPy's pool holds and no array needs; nothing happens without CuPy or a GPU."""
    cupy = sys.modules.get("cupy")
    if cupy is not None and cuda_problem() is None:
        cupy.get_default_memory_pool().free_all_blocks()


class OutOfMemoryError(MemoryError):
    """There is less memory than was needed, and the message says what to lower.

    Where a GPU's was full, `requested` bytes were asked for (None: unknown), and `memory` is what was known of it.
    """

    def __init__(self, message: str, requested: int | None = None, memory: GpuMemory | None = None) -> None:
        super().__init__(message)
        self.requested, self.memory = requested, memory


@contextmanager
def guard_memory() -> Iterator[None]:
    """A `with` block out of which CuPy's errors about memory come as `OutOfMemoryError`, which says what to lower.

    What the pool holds in pieces too small is given back first, so that a smaller attempt can follow.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_full(error):
            raise
        memory = gpu_memory()
        release_memory()
        requested = getattr(error, "_size", None)
        raise OutOfMemoryError(_what_to_lower(requested, memory), requested, memory) from error


def _is_full(error: Exception) -> bool:
    """Whether CuPy's allocator, or else the driver or a library of CUDA's, found no memory."""
    cupy = sys.modules.get("cupy")
    if cupy is None:
        return False
    if isinstance(error, MemoryError):
        return isinstance(error, cupy.cuda.memory.OutOfMemoryError)
    names = "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"
    return any(name in str(error) for name in names)


def _what_to_lower(requested: int | None, memory: GpuMemory) -> str:
    asked = "more memory was" if requested is None else f"{_size(requested)} more were"
    others = max(memory.total - memory.free - memory.held, 0)
    return (
        f"the GPU's memory is full: {asked} asked for, and {_size(memory.available)} of {_size(memory.total)} were "
        f"left ({_size(memory.used)} are in arrays of this process, {_size(others)} belong to other programs); lower "
        "the batch size or the context, or take a smaller dtype"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
