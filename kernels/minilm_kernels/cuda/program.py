"""A source with its macros as kernels that can be called: compiled for the card at hand, loaded once a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from . import nvrtc
from .cubins import cubin

__all__ = ["DeviceProperties", "Kernel", "Program", "device_properties", "scalar_name"]

_SCALARS = {"float32": "float", "float64": "double", "float16": "f16", "bfloat16": "bf16"}
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


@dataclass(frozen=True)
class DeviceProperties:
    """What launches depend on: `capability` as 10 major + minor, and the number of multiprocessors."""

    capability: int
    multiprocessors: int
    shared_bytes: int  # the most that a block may take


class Program:
    """A `.cu` file with macros, compiled when one of its kernels is first called on a card.

    `source` is found beside the file `beside`, a module's `__file__`. `defines` are macros, `options` go to NVRTC. With
    `specific` the target is the card's own architecture with all its features ("sm_90a", not "sm_90").
    """

    def __init__(
        self,
        beside: str,
        source: str,
        defines: Mapping[str, object] | None = None,
        options: Sequence[str] = (),
        *,
        specific: bool = False,
    ) -> None:
        self.path = (Path(beside).parent / source).resolve()
        self.defines, self.options, self.specific = dict(defines or {}), tuple(options), specific
        self._kernels: dict[str, Kernel] = {}

    def kernel(self, name: str) -> Kernel:
        """The kernel declared as `extern "C" __global__ void name(...)`: one object for each name."""
        if name not in self._kernels:
            self._kernels[name] = Kernel(self, name)
        return self._kernels[name]


class Kernel:
    """A kernel to be called: `kernel(grid, block, args, shared_bytes=0)`, on CuPy's current stream and device.

    `grid` and `block` are ints or tuples of up to three; a grid without blocks is not launched. Arguments are CuPy
    arrays (their address is passed: they must be laid out as the kernel thinks), None (a null pointer), and NumPy
    scalars of exactly the C types that the kernel declares, structured ones for structs; Python's numbers have no size
    and are a TypeError.
    """

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name
        self._loaded: dict[object, Callable] = {}

    def __call__(self, grid, block, args: tuple, shared_bytes: int = 0) -> None:
        grid, block = _three(grid), _three(block)
        if 0 in grid:
            return
        device = _runtime.current()
        launch = self._loaded.get(device)
        if launch is None:
            launch = self._loaded[device] = _runtime.load(self.program, self.name)
        launch(grid, block, args, shared_bytes)


class _CuPy:
    """Devices, modules and launches by CuPy. The tests put the host emulator's in its place."""

    def __init__(self) -> None:
        self._modules: dict[tuple, object] = {}

    def current(self) -> int:
        import cupy

        return cupy.cuda.runtime.getDevice()

    def properties(self) -> DeviceProperties:
        import cupy

        device = cupy.cuda.Device()
        attributes = device.attributes
        return DeviceProperties(
            int(device.compute_capability),
            attributes["MultiProcessorCount"],
            attributes["MaxSharedMemoryPerBlockOptin"],
        )

    def load(self, program: Program, name: str) -> Callable:
        import cupy
        from cupy_backends.cuda.api import driver

        key = self.current(), program
        module = self._modules.get(key)
        if module is None:
            module = cupy.cuda.function.Module()
            target = _target(self.properties().capability, program.specific)
            module.load(cubin(program.path, target, program.defines, program.options))
            self._modules[key] = module
        function = module.get_function(name)
        allowed = 0

        def launch(grid, block, args, shared_bytes):
            nonlocal allowed
            # Unasked a block gets 48 KiB, from which the arrays come off that the kernel itself declares.
            if shared_bytes > allowed:
                driver.funcSetAttribute(function.ptr, _MAX_DYNAMIC_SHARED, shared_bytes)
                allowed = shared_bytes
            function(
                grid, block, tuple([_argument(name, number, arg) for number, arg in enumerate(args)]), shared_bytes
            )

        return launch


_runtime = _CuPy()
_properties: dict[object, DeviceProperties] = {}


def device_properties() -> DeviceProperties:
    """Those of the device that CuPy uses at the moment."""
    device = _runtime.current()
    if device not in _properties:
        _properties[device] = _runtime.properties()
    return _properties[device]


def scalar_name(dtype) -> str:
    """The name in the sources (common.cuh) of a NumPy dtype: "float", "f16", "bf16" or "double"."""
    return _scalar_name(np.dtype(dtype))


@cache
def _scalar_name(dtype: np.dtype) -> str:
    if dtype.name not in _SCALARS:
        raise TypeError(f"no CUDA kernel computes in {dtype.name}; there are {', '.join(_SCALARS)}")
    return _SCALARS[dtype.name]


def _target(capability: int, specific: bool) -> str:
    """The newest architecture of the card's generation that NVRTC knows: its code runs on all later ones of it."""
    known = [arch for arch in nvrtc.targets() if arch <= capability and arch // 10 == capability // 10]
    if not known or (specific and max(known) != capability):
        major, minor = nvrtc.version()
        raise RuntimeError(
            f"NVRTC {major}.{minor} does not compile for this card (compute capability {capability / 10}); install a "
            "newer one: pip install --upgrade nvidia-cuda-nvrtc"
        )
    return f"sm_{max(known)}{'a' if specific else ''}"


def _argument(kernel: str, number: int, value):
    """What CuPy's launch takes for a value: arrays as their addresses, NumPy scalars as they are."""
    if isinstance(value, np.void):  # a struct by value, which CuPy passes as an array of one
        return np.asarray(value)
    if isinstance(value, np.generic):
        return value
    if value is None:
        return np.uint64(0)
    if hasattr(value, "data") and hasattr(value.data, "ptr"):
        return np.uint64(value.data.ptr)
    raise TypeError(
        f"argument {number} of kernel {kernel} is a {type(value).__name__}; expected a CuPy array, None, or a NumPy "
        "scalar of the C type that the kernel declares, such as numpy.int32(...) or numpy.float32(...)"
    )


def _three(size) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    return (*sizes, 1, 1)[:3] if len(sizes) < 3 else sizes
