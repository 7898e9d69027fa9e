"""What is known and measured of the machine: its name, the versions, and what its kernels can reach at best."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import numpy as np

__all__ = ["ceilings", "describe", "processor", "versions"]


def ceilings(dtype, n: int = 1536, count: int = 2**25) -> dict[str, tuple]:
    """Two calls that nothing outruns: {"matrix": (function, operations), "copy": (function, bytes)}.

    An (n, n) @ (n, n) product in `dtype` (float32 for the smaller ones, in which no BLAS multiplies), and the copy of
    an array too large for the caches, whose bytes are counted as read once and written once.
    """
    wide = np.dtype(dtype) if np.dtype(dtype) == np.float64 else np.dtype(np.float32)
    a = np.random.default_rng(0).standard_normal((n, n)).astype(wide)
    product = np.empty_like(a)
    source, target = np.ones(count, np.float32), np.empty(count, np.float32)
    return {
        "matrix": (lambda: np.matmul(a, a, out=product), 2 * n**3),
        "copy": (lambda: np.copyto(target, source), 2 * source.nbytes),
    }


def describe() -> str:
    """The processor and the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} cores"


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(packages: list[str]) -> str:
    """Python's and the packages' versions, "not installed" where one is missing."""
    found = [f"python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
