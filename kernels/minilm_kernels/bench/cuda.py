"""The lab on an NVIDIA GPU: arrays by CuPy, times between events, ceilings measured on the card."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

import numpy as np

from ..products import matmul
from .device import Device, laid_out
from .errors import LabError
from .timing import DeviceTimer

__all__ = ["Cuda"]

_PACKAGES = ("cupy", "cupy-cuda13x", "cupy-cuda12x")  # it is published under several names


class Cuda(Device):
    """CuPy arrays on the current GPU. LabError, with what is missing, where there is none."""

    name, dtype = "cuda", "bfloat16"

    def __init__(self) -> None:
        self.cupy = _loaded()
        found = [name for name in _PACKAGES if _is_installed(name)]
        self.packages = ("numpy", *found, *(["numba-cuda"] if _is_installed("numba-cuda") else []))

    def put(self, value, layout: str = "contiguous"):
        return laid_out(self._sent(value), layout, self.cupy)

    def _sent(self, value):
        if isinstance(value, dict):
            return {name: self._sent(item) for name, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(self._sent(item) for item in value)
        return self.cupy.asarray(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

    def timer(self) -> DeviceTimer:
        """Events on CuPy's current stream, which is torch's too: the one that all the process shares."""
        cupy = self.cupy
        size = max(2 * cupy.cuda.Device().attributes["L2CacheSize"], 2**27)
        flushed = cupy.empty(size // 4, np.float32)

        def elapsed(start, stop) -> float:
            stop.synchronize()
            return cupy.cuda.get_elapsed_time(start, stop) / 1e3

        return DeviceTimer(
            flush=lambda: flushed.fill(0),
            record=lambda: _recorded(cupy),
            elapsed=elapsed,
            synchronize=lambda: cupy.cuda.get_current_stream().synchronize(),
        )

    def ceilings(self, dtype, n: int = 8192, count: int = 2**28) -> dict[str, tuple]:
        """A square product in `dtype`, as cuBLAS does it for us, and a copy, read once and written once."""
        cupy, dtype = self.cupy, np.dtype(dtype)
        n = n // 2 if dtype == np.float64 else n
        tile = np.random.default_rng(0).standard_normal(
            (n // 8, n // 8), dtype=np.float32
        )  # drawing all takes a second
        a = cupy.tile(cupy.asarray(tile), (8, 8)).astype(dtype)
        source, target = cupy.zeros(count, np.float32), cupy.zeros(count, np.float32)
        return {
            "matrix": (lambda: matmul(a, a), 2 * n**3),
            "copy": (lambda: cupy.copyto(target, source), 2 * source.nbytes),
        }

    def describe(self) -> str:
        runtime = self.cupy.cuda.runtime
        card = runtime.getDeviceProperties(runtime.getDevice())
        runs, drives = (
            f"{n // 1000}.{n % 1000 // 10}" for n in (runtime.runtimeGetVersion(), runtime.driverGetVersion())
        )
        return (
            f"{card['name'].decode()}, {card['totalGlobalMem'] / 2**30:.0f} GiB, compute capability {card['major']}."
            f"{card['minor']}, CUDA {runs}, driver for {drives}"
        )

    def peak_bytes(self, function: Callable) -> int:
        """By a hook in CuPy's memory pool, which all its arrays come from, in the pool's whole blocks."""
        cupy = self.cupy
        held = peak = 0

        class Count(cupy.cuda.MemoryHook):
            name = "minilm_peak"

            def malloc_postprocess(self, **block) -> None:
                nonlocal held, peak
                held += block["mem_size"]
                peak = max(peak, held)

            def free_postprocess(self, **block) -> None:
                nonlocal held
                held -= block["mem_size"]

        with Count():
            result = function()
            cupy.cuda.get_current_stream().synchronize()
        del result
        return peak

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """CuPy raises by itself where memory runs out. What it and torch keep is given back, each for the other."""
        try:
            yield
        finally:
            self.cupy.get_default_memory_pool().free_all_blocks()
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_available():
                torch.cuda.empty_cache()


def _recorded(cupy):
    event = cupy.cuda.Event()
    event.record()
    return event


def _loaded():
    """CuPy, if it and a GPU are there."""
    try:
        import cupy
    except ImportError as error:
        raise LabError(
            f"device cuda needs CuPy, which does not import here ({error}): pip install 'minilm[cuda13]' (NVIDIA "
            "driver 580 or newer) or 'minilm[cuda12]' (525 or newer), or choose --device cpu"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise LabError(
            f"device cuda needs an NVIDIA GPU and its driver ({error}); check that nvidia-smi runs"
        ) from error
    if not count:
        raise LabError("device cuda needs an NVIDIA GPU, and the driver finds none; check CUDA_VISIBLE_DEVICES")
    return cupy


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
