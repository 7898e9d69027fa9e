"""What this machine can do at best, measured: the rate of a large matrix product and of a large copy."""

from __future__ import annotations

import os
import platform
import statistics
import time

import numpy as np


def median_seconds(function, repeats: int) -> float:
    """The median time of `repeats` calls, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def sgemm_gflops(n: int = 2048, repeats: int = 7) -> float:
    """Float32 operations a second, in 1e9, of NumPy's (n, n) @ (n, n)."""
    a = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    out = np.empty_like(a)
    return 2 * n**3 / median_seconds(lambda: np.matmul(a, a, out=out), repeats) / 1e9


def copy_gbytes(count: int = 2**26, repeats: int = 7) -> float:
    """Bytes read and written a second, in 1e9, of copying a large array."""
    source = np.ones(count, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / median_seconds(lambda: np.copyto(target, source), repeats) / 1e9


def describe() -> str:
    """The machine and the versions, in a line."""
    import numba

    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}"
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {platform.system()}; {versions}"
