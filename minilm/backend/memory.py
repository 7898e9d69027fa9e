"""The process's memory: kept for reuse instead of being given back and faulted in again."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

__all__ = ["peak_memory", "reuse_memory"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def reuse_memory() -> bool:
    """Has the C library keep freed memory for the next array; True where it can (glibc).

    By default every large array is mapped afresh and returned when freed, so each training step pays a page fault for
    every 4 KiB it touches (a third of a step's time for GPT-2 124M). Changes no result. Called by the training loop.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    settings = [(_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20)]
    accepted = [mallopt(option, value) == 1 for option, value in settings]
    return all(accepted)


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes (its peak resident set)."""
    if sys.platform.startswith("linux"):  # ru_maxrss would count what a parent process held when it forked
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
