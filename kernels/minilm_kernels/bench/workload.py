"""What the lab has to know about an operation to check and time it: each has a `workload.py` in its folder.

A workload names its sizes, says how to draw inputs of these sizes, and counts the arithmetic. The rest, from the
float64 reference to the rows of the table, is the same for all operations.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import registry

__all__ = ["MODES", "Draw", "Inputs", "Peer", "Workload", "arrays_in", "workload", "workloads"]

MODES = ("forward", "backward")


class Draw:
    """Random arrays of one dtype from a seeded stream."""

    def __init__(self, seed: int, dtype="float32"):
        self.random = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Normal numbers of standard deviation `scale`."""
        drawn = np.float64 if self.dtype == np.float64 else np.float32
        array = self.random.standard_normal(shape, dtype=drawn)
        if scale != 1:
            array *= drawn(scale)
        return array.astype(self.dtype, copy=False)

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Integers in [low, high)."""
        return self.random.integers(low, high, shape)


@dataclass
class Inputs:
    """The arguments of one call: arrays (or None, or lists of arrays) in order, and keyword settings."""

    args: tuple
    settings: dict[str, Any] = field(default_factory=dict)
    forward: Inputs | None = None  # of a backward pass: the arguments of the forward pass that it belongs to


@dataclass
class Peer:
    """The same computation by another library.

    `function` takes the forward pass's arguments as that library's arrays and returns its output, or a tuple. With
    `gradients`, the places of the arguments that get one, the backward pass is the library's own differentiation of
    it, from the backward pass's first arguments, one for each output. Without, `function` is the pass asked for
    itself, and takes that pass's arguments.
    """

    name: str
    function: Callable
    gradients: tuple[int, ...] | None = None
    context: Callable = nullcontext  # is entered around the calls, and not timed
    devices: tuple[str, ...] = ("cpu", "cuda")  # on which it is a peer


class Workload:
    """An operation as the lab runs it; a subclass for each, in the operation's folder."""

    operation: str
    sizes: tuple[str, ...]  # what a shape on the command line is made of
    x: str  # the size that plots have on their x axis
    presets: dict[str, list[tuple[int, ...]]]  # shapes worth timing, by name; "default" is one
    options: dict[str, tuple] = {}  # what a row varies besides sizes: name -> the values timed unless asked otherwise
    awkward: dict[str, tuple]  # for checking: values of each size, and of options, that kernels go wrong at
    layouts: tuple[str, ...] = ("contiguous", "transposed", "strided", "reversed", "readonly")
    multiple_of: dict[str, int] = {}  # sizes that can't be any number: what they have to be a multiple of
    in_place = False  # whether calls change their arguments
    float32_results: dict[str, tuple[int, ...]] = {}  # which may be float32 where the arguments have 16 bits

    def build(self, draw: Draw, **sizes_and_options) -> Inputs:
        """Draws the forward pass's arguments for these sizes and options."""
        raise NotImplementedError

    def backward(self, draw: Draw, inputs: Inputs, outputs: tuple) -> Inputs:
        """The backward pass's arguments, given the forward pass's and what it returned."""
        raise NotImplementedError

    def flops(self, mode: str, **sizes_and_options) -> float:
        """Floating-point operations of a call; an exp, a division, a square root count as one each."""
        raise NotImplementedError

    def bytes_moved(self, mode: str, inputs: Inputs, results: tuple) -> float:
        """Bytes that have to be read and written at least; every argument and every result once, unless overridden."""
        return sum(array.nbytes for array in arrays_in((inputs.args, results)))

    def results(self, returned, args: tuple) -> tuple:
        """The arrays to compare, from what a call returned or, of a call that works in place, from its arguments."""
        return returned if isinstance(returned, tuple) else (returned,)

    def reference(self, function: Callable, inputs: Inputs):
        """Calls the reference; overridden where it would need more memory than a machine has, to go piece by piece."""
        return function(*inputs.args, **inputs.settings)

    def cancelling(self, mode: str, inputs: Inputs, exact: tuple) -> float:
        """The size of terms that cancel in a result, whose rounding no implementation can escape."""
        return 0.0

    def torch(self, torch, mode: str, settings: dict) -> list[Peer]:
        """How torch computes the same; no peer unless overridden."""
        return []

    def passes(self) -> dict[str, str]:
        """The modes that the operation has, and for each its name in the registry."""
        names = {"forward": self.operation, "backward": f"{self.operation}_backward"}
        known = registry.operations()
        return {mode: name for mode, name in names.items() if name in known}

    def function(self, mode: str) -> Callable:
        """The public function of a mode."""
        module = importlib.import_module(f"{registry.__package__}.{self.operation}")
        return getattr(module, self.passes()[mode])

    def label(self, shape: tuple[int, ...]) -> str:
        """A shape as the command line takes it."""
        return ",".join(map(str, shape))

    def count(self, shape: tuple[int, ...]) -> int:
        """The product of the sizes."""
        return math.prod(shape)


def arrays_in(value) -> list[np.ndarray]:
    """All arrays in nested tuples and lists."""
    if isinstance(value, (tuple, list)):
        return [array for item in value for array in arrays_in(item)]
    return [value] if hasattr(value, "nbytes") else []


def workloads() -> dict[str, Workload]:
    """Every operation that has a workload, by name."""
    folders = dict.fromkeys(name.removesuffix("_backward") for name in registry.operations())
    found = {name: workload(name) for name in folders if _module(name) is not None}
    return dict(sorted(found.items()))


def workload(operation: str) -> Workload:
    """The workload of an operation; ValueError with the names that there are for another."""
    module = _module(operation)
    if module is None:
        raise ValueError(f"no operation is named {operation!r}; there are: {', '.join(workloads())}")
    return importlib.import_module(module).WORKLOAD


def _module(operation: str) -> str | None:
    name = f"{registry.__package__}.{operation}.workload"
    if not operation.isidentifier():
        return None
    try:
        return name if importlib.util.find_spec(name) is not None else None
    except ModuleNotFoundError:
        return None
