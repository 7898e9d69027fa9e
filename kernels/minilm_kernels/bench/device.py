"""Where the lab runs its kernels: what it asks of a device, and the CPU; `cuda.py` has the other one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from . import machine, memory
from .timing import HostTimer

__all__ = ["Cpu", "Device", "device_named", "laid_out"]


class Device:
    """Arrays of one library, and how calls on them are timed. A subclass for each."""

    name: str  # "cpu" or "cuda", as the registry has it
    dtype: str  # what is timed unless asked otherwise
    packages: tuple[str, ...]  # whose versions a reader wants to know

    def put(self, value, layout: str = "contiguous"):
        """Arrays of the host in this memory layout, nested in tuples, lists and dictionaries or not, on the device."""
        raise NotImplementedError

    def timer(self) -> HostTimer:
        """What times calls on this device."""
        raise NotImplementedError

    def ceilings(self, dtype) -> dict[str, tuple]:
        """Two calls that nothing outruns: {"matrix": (function, operations), "copy": (function, bytes)}."""
        raise NotImplementedError

    def describe(self) -> str:
        """The device in a line."""
        raise NotImplementedError

    def peak_bytes(self, function: Callable) -> int:
        """The most bytes that `function()` has allocated at one time, its result included; returns when it is done."""
        raise NotImplementedError

    def bounded(self) -> AbstractContextManager:
        """A `with` block that leaves no memory behind, and in which too little of it is a MemoryError."""
        raise NotImplementedError


class Cpu(Device):
    """NumPy arrays."""

    name, dtype, packages = "cpu", "float32", ("numpy", "numba")

    def put(self, value, layout: str = "contiguous"):
        return value

    def timer(self) -> HostTimer:
        return HostTimer()

    def ceilings(self, dtype) -> dict[str, tuple]:
        return machine.ceilings(dtype)

    def describe(self) -> str:
        return machine.describe()

    def peak_bytes(self, function: Callable) -> int:
        return memory.peak_bytes(function)

    def bounded(self) -> AbstractContextManager:
        return memory.bounded()


def device_named(name: str) -> Device:
    """ "cpu" or "cuda"; LabError, with what is missing, where there is none."""
    if name == "cpu":
        return Cpu()
    from .cuda import Cuda

    return Cuda()


def laid_out(value, layout: str, xp=np):
    """The same numbers in another memory layout, by NumPy or CuPy: arrays nested in tuples, lists and dictionaries."""
    if isinstance(value, dict):
        return {name: laid_out(item, layout, xp) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(laid_out(item, layout, xp) for item in value)
    if not isinstance(value, xp.ndarray) or value.ndim == 0:
        return value
    if layout == "transposed":
        return xp.asfortranarray(value)
    if layout == "strided":
        wide = xp.zeros((*value.shape[:-1], 2 * value.shape[-1]), value.dtype)
        wide[..., ::2] = value
        return wide[..., ::2]
    if layout == "reversed":
        backwards = (slice(None, None, -1),) * value.ndim
        return xp.ascontiguousarray(value[backwards])[backwards]
    if layout == "readonly" and xp is np:  # CuPy has no such thing
        value = value.copy()
        value.flags.writeable = False
    return value
