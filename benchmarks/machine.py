"""What this machine or its GPU can do at best, measured: the rate of a large matrix product and of a large copy."""

from __future__ import annotations

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


def gpu_product_gflops(precision: str, repeats: int = 20) -> float:
    """Operations a second, in 1e9, of the lab's large product on the GPU, in what a training step multiplies in."""
    from minilm_kernels.bench.cuda import Cuda
    from minilm_kernels.products import tf32

    gpu = Cuda()
    dtype = "float32"
    if precision == "bf16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    function, operations = gpu.ceilings(dtype)["matrix"]
    with gpu.bounded(), tf32(precision == "tf32"):
        timer = gpu.timer()
        timer.warm_up(function)
        return operations / statistics.median(timer.seconds(function, 1) for _ in range(repeats)) / 1e9


def gpu_memory_in_use() -> int:
    """Bytes of the GPU's memory that all processes have taken."""
    import cupy

    free, total = cupy.cuda.runtime.memGetInfo()
    return total - free


def describe(device: str = "cpu") -> str:
    """The machine, with its GPU where that is the device, and the versions, in a line."""
    import numba
    from minilm_kernels.bench import machine

    versions = f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}"
    host = f"{machine.describe()}, {platform.system()}; {versions}"
    if device == "cpu":
        return host
    import cupy
    from minilm_kernels.bench.cuda import Cuda

    return f"{Cuda().describe()}; {host}, cupy {cupy.__version__}"
