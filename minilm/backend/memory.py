"""The process's memory: kept for reuse instead of being given back and faulted in again."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .gpu import gpu_memory

__all__ = ["keep_objects", "peak_memory", "reuse_memory"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_MADV_HUGEPAGE, _HUGE_PAGE, _RESERVED = 14, 2 * 2**20, 2**30
_done = False


def reuse_memory() -> bool:
    """Has the C library keep freed memory for the next array, in large pages; True where it can (glibc on Linux).

    By default every large array is mapped afresh and returned when freed, so each training step pays a page fault for
    every 4 KiB it touches; and the addresses of a step's many small pages are more than the processor can remember.
    Together that is a third of a step's time. Changes no result. Called by the training loop.
    """
    global _done
    if _done or not sys.platform.startswith("linux"):
        return _done
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    settings = [(_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20)]
    accepted = [mallopt(option, value) == 1 for option, value in settings]
    _done = all(accepted)
    if _done:
        _ask_for_huge_pages(libc)
    return _done


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Grows the heap's address range (which takes no memory until it is used) and asks the kernel to back it so."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.free(libc.malloc(_RESERVED))
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            if line.rstrip().endswith("[heap]"):
                start, stop = (int(address, 16) for address in line.split()[0].split("-"))
                start = -(-start // _HUGE_PAGE) * _HUGE_PAGE
                if stop > start:
                    libc.madvise(start, stop - start, _MADV_HUGEPAGE)  # advice: where it is refused, nothing is lost


@contextmanager
def keep_objects() -> Iterator[None]:
    """Within it, Python's garbage collector leaves alone what exists already: modules, compiled kernels, the model.

    The collector comes by several times a second, because a step makes and drops some thousand objects, and goes over
    everything that there is: a twentieth of a small model's step. Enter after the first step, when all is compiled.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def peak_memory(device: str = "cpu") -> int:
    """The most memory this process has held so far, in bytes: its peak resident set, or on "cuda" CuPy's pool."""
    if device == "cuda":
        return gpu_memory().held
    if sys.platform.startswith("linux"):  # ru_maxrss would count what a parent process held when it forked
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
