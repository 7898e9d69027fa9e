"""How many threads there should be: as many as were asked for, or as there are cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_cores", "requested"]


def requested() -> int | None:
    """`OMP_NUM_THREADS`, None if it is not set; ValueError if it is not a number, 1 or more."""
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not text:
        return None
    first = text.split(",")[0].strip()  # the others are for nested regions
    if not first.isdecimal() or int(first) < 1:
        raise ValueError(f"OMP_NUM_THREADS is {text!r}; expected a number of threads, 1 or more")
    return int(first)


def available_cores(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use: no more than its affinity has, nor than its control group pays for.

    The one is what `taskset` sets, the other a container's `--cpus`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(groups)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(groups: Path) -> float | None:
    """The control group's processor time a second of wall time, by version 2 or version 1 of the interface."""
    try:
        quota, period = (groups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
