"""`minilm info`: what is here to compute with, for a person and for a report of a fault; or what a model is."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated

from .parsing import parse, place

__all__ = ["run"]

_PACKAGES = ("numpy", "numba", "safetensors", "tokenizers", "ml_dtypes", "rich", "tyro", "matplotlib")


@dataclass
class InfoArguments:
    """What `minilm info` takes."""

    model: Annotated[str | None, place("[MODEL]")] = None  # a run's or model's folder, a GGUF file; None: the machine


def run(arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    from .model_info import model_facts

    description = "Show versions, devices and the machine's speed; or, of a model, its size and what a token costs."
    options = parse(InfoArguments, arguments, "info", description, positional="all")
    for name, value in _facts() if options.model is None else model_facts(options.model):
        print(f"{name:<14} {value}", flush=True)
    return 0


def _facts() -> Iterator[tuple[str, str]]:
    from minilm_kernels.bench.machine import processor
    from minilm_kernels.cores import available_cores

    from minilm import __version__, backend
    from minilm.training import matrix_rate

    yield "minilm", __version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for package in _PACKAGES:
        yield package, _version(package)
    yield "cpu", f"{processor()}, {available_cores()} of {os.cpu_count()} cores usable"
    yield "memory", _memory()
    yield "threads", _threads()
    yield "blas", _blas()
    yield "compiled code", _compiled()
    yield "sgemm", f"{matrix_rate('cpu') / 1e9:,.0f} GFLOP/s (float32 matrix product, 1024 wide)"
    problem = backend.cuda_problem()
    yield "cuda", f"not usable: {problem}" if problem else _cuda()
    for gpu in backend.gpus():
        yield "gpu", str(gpu)
    if problem is None:
        yield "cuda sgemm", f"{matrix_rate('cuda', size=8192) / 1e9:,.0f} GFLOP/s (float32 matrix product, 8192 wide)"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return f"not installed (pip install {package})"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def _threads() -> str:
    from minilm_kernels import get_num_threads, pool

    count = get_num_threads()
    shared = "one pool for kernels and BLAS" if pool.shares_with_blas() else "kernels and BLAS have a pool each"
    return f"{count} of {pool.SIZE} ({shared}; --threads N or OMP_NUM_THREADS sets them)"


def _blas() -> str:
    import numpy as np

    library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{library.get('name', 'unknown')} {library.get('version', '')}"


def _compiled() -> str:
    from minilm_kernels.cache import folder

    return folder() or "not kept: no folder can be written to (NUMBA_CACHE_DIR names one)"


def _cuda() -> str:
    import sys

    cupy = sys.modules["cupy"]  # which looking for problems has imported
    runtime, driver = cupy.cuda.runtime.runtimeGetVersion(), cupy.cuda.runtime.driverGetVersion()
    return f"{_release(runtime)}, driver for {_release(driver)}, CuPy {cupy.__version__}"


def _release(version: int) -> str:
    """12060 is CUDA 12.6."""
    return f"{version // 1000}.{version % 1000 // 10}"
