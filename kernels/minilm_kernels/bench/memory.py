"""How much memory a call takes beyond what was there before it."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import tracemalloc
from collections.abc import Callable, Iterator

__all__ = ["bounded", "peak_bytes"]


def peak_bytes(function: Callable) -> int:
    """The most bytes that `function()` has allocated at one time, its result included.

    The larger of two views, since neither sees all: tracemalloc counts NumPy's arrays to the byte but nothing that
    compiled code allocates; the kernel's high-water mark of resident memory (Linux) counts everything, but only pages
    that were touched and had not been kept by the allocator from before.
    """
    _give_back()
    before = _resident() if _reset_high_water() else None
    tracemalloc.start()
    try:
        result = function()
        counted = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    high = _resident("VmHWM") if before is not None else None
    del result
    return max(counted, high - before if high is not None and before is not None else 0)


@contextlib.contextmanager
def bounded(share: float = 0.9) -> Iterator[None]:
    """A `with` block in which taking more than this share of the memory that is free is a MemoryError.

    A textbook kernel at a long context would otherwise have the whole program killed. Linux only; elsewhere no bound.
    """
    free = _proc("/proc/meminfo", "MemAvailable")
    data = _resident("VmData")
    if not sys.platform.startswith("linux") or free is None or data is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = int(data + share * free)
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _give_back() -> None:
    """Has the C library return its free memory, so that what a call touches counts as new."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset_high_water() -> bool:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return _resident("VmHWM") is not None


def _resident(name: str = "VmRSS") -> int | None:
    return _proc("/proc/self/status", name)


def _proc(path: str, name: str) -> int | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None
