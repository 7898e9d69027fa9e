"""How much memory a device has in use and has left."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from .gpu import gpu_memory

__all__ = ["free_memory", "memory_in_use"]


def free_memory(device: str) -> int | None:
    """Bytes that more arrays on `device` could take; None where the system does not say.

    Of a GPU what the driver has left and what CuPy's pool holds unused; of the CPU what Linux calls available, within
    the limits of the control group and the process.
    """
    if device == "cuda":
        return gpu_memory().available
    if not sys.platform.startswith("linux"):
        return None
    found = []
    with suppress(OSError, ValueError, IndexError):
        available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        found.append(1024 * int(available))
    with suppress(OSError, ValueError):  # "max" where the group has no limit
        group = Path("/sys/fs/cgroup")
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        found.append(limit - used)
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        found.append(limit - pages * resource.getpagesize())
    return max(min(found), 0) if found else None


def memory_in_use(device: str) -> int | None:
    """Bytes that arrays on the GPU hold, with those that CuPy's pool keeps for the next ones; None on the CPU."""
    if device != "cuda":
        return None
    memory = gpu_memory()
    return memory.total - memory.free
