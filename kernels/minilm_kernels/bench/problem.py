"""One call with drawn inputs, what its results should be, and whether given results are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..registry import array_module
from .device import Cpu, Device, laid_out
from .workload import Draw, Inputs, Workload, arrays_in

__all__ = ["Problem", "Verdict", "laid_out"]

# Units in the last place of the largest value that every implementation may be off by.
SLACK = 4
# The float64 reference is no better than a float64 kernel, so there the two may differ by more of them.
SLACK_OF_DOUBLE = 4096
# Bytes of an input from which on looking whether it was changed would cost more than the call; smaller shapes show it.
_WATCHED = 2**26


@dataclass
class Verdict:
    """How far results are from the float64 reference: at most, and as a share of the reference's largest value."""

    absolute: float = 0.0
    relative: float = 0.0
    fault: str | None = None  # what is wrong, as a sentence; None if the results are right

    @property
    def ok(self) -> bool:
        return self.fault is None


class Problem:
    """A workload's mode with inputs drawn for these sizes and options, in one dtype, memory layout and place.

    `inputs` are on the host; what runs, the references too, is given them on the `device`, the CPU if None.
    """

    def __init__(
        self,
        workload: Workload,
        mode: str,
        parameters: dict[str, Any],
        dtype,
        seed: int = 0,
        layout: str = "contiguous",
        device: Device | None = None,
    ):
        self.workload, self.mode, self.parameters = workload, mode, parameters
        self.dtype, self.layout, self.device = _dtype(dtype), layout, device or Cpu()
        draw = Draw(seed, self.dtype)
        inputs = workload.build(draw, **parameters)
        if mode == "backward" and "forward" in workload.passes():
            forward = inputs
            # NumPy makes float32 of bfloat16 and a Python number; a kernel's results have its arguments' dtype.
            outputs = _on_host(self._reference("forward", forward))
            kept = workload.float32_results.get("forward", ()) if self.dtype.itemsize == 2 else ()
            cast = [_cast(x, np.float32 if i in kept else self.dtype) for i, x in enumerate(outputs)]
            inputs = workload.backward(draw, forward, tuple(cast))
            inputs.forward = forward
        self.inputs = Inputs(laid_out(inputs.args, layout), inputs.settings, inputs.forward)

    def fresh(self) -> Inputs:
        """The inputs on the host; copies where the call changes them."""
        if not self.workload.in_place:
            return self.inputs
        return Inputs(_copied(self.inputs.args), self.inputs.settings, self.inputs.forward)

    def placed(self) -> Inputs:
        """The inputs on the device, in the layout that they have."""
        inputs = self.fresh()
        return Inputs(self.device.put(inputs.args, self.layout), self.device.put(inputs.settings))

    @cached_property
    def scratch(self) -> Inputs:
        """Inputs for calls whose results nobody looks at."""
        return self.placed()

    def call(self, implementation: str, inputs: Inputs) -> Callable:
        """A function of no arguments that runs the operation by an implementation."""
        function = self.workload.function(self.mode)
        return partial(function, *inputs.args, **inputs.settings, implementation=implementation)

    def run(self, implementation: str) -> tuple:
        """The results of an implementation; ValueError if it writes to inputs that it should only read."""
        inputs = self.placed()
        watched = {} if self.workload.in_place else dict(enumerate(arrays_in(inputs.args)))
        before = {number: array.copy() for number, array in watched.items() if array.nbytes < _WATCHED}
        results = self.workload.results(self.call(implementation, inputs)(), inputs.args)
        for number, kept in before.items():
            if not np.array_equal(_on_host(watched[number]), _on_host(kept), equal_nan=True):
                raise ValueError(f"it wrote to input array {number}, which it should only read")
        return results

    @cached_property
    def exact(self) -> tuple:
        """The reference's results in float64, on the numbers that the inputs hold."""
        return self._reference(self.mode, _converted(self.fresh(), np.dtype(np.float64)))

    @cached_property
    def _plain(self) -> tuple:
        """The reference's results in the inputs' own dtype."""
        return self._reference(self.mode, self.fresh())

    @cached_property
    def _cancelling(self) -> float:
        widened = _converted(self.inputs, np.dtype(np.float64))
        return float(self.workload.cancelling(self.mode, widened, _on_host(self.exact)))

    def _reference(self, mode: str, inputs: Inputs) -> tuple:
        placed = Inputs(self.device.put(inputs.args), self.device.put(inputs.settings))
        run = partial(self.workload.function(mode), implementation="reference")
        with np.errstate(all="ignore"):
            return self.workload.results(self.workload.reference(run, placed), placed.args)

    def verdict(self, results: tuple, slack: float = 1.0, partial: bool = False) -> Verdict:
        """Compares results with the exact ones; `slack` multiplies what is allowed, `partial` lets some be missing."""
        if len(results) != len(self.exact) and not partial:
            return Verdict(np.inf, np.inf, f"it returned {len(results)} results; expected {len(self.exact)}")
        double = self.dtype == np.float64
        units = slack * _eps(self.dtype) * (SLACK_OF_DOUBLE if double else SLACK)
        verdict = Verdict()
        for number, (mine, exact) in enumerate(zip(self.device.put(results), self.exact)):
            if mine is None and (exact is None or partial):
                continue
            wide = self.dtype.itemsize == 2 and number in self.workload.float32_results.get(self.mode, ())
            fault = _mismatch(mine, exact, {self.dtype, np.dtype(np.float32)} if wide else {self.dtype})
            if fault is not None:
                return Verdict(np.inf, np.inf, f"result {number} {fault}")
            found = _distance(mine, exact)
            allowed = units * max(found.largest, self._cancelling)
            if found.error > allowed and not double:
                allowed += 2 * slack * _distance(self._plain[number], exact).error
            relative = found.error / found.largest if found.largest else (np.inf if found.error else 0.0)
            verdict.absolute = max(verdict.absolute, found.error)
            verdict.relative = max(verdict.relative, relative)
            if found.strange and verdict.ok:
                verdict.fault = f"result {number} {found.strange}"
            elif found.error > allowed and verdict.ok:
                times = f"{found.error / allowed:,.1f} times the {allowed:.1e} allowed" if allowed else "expected 0"
                verdict.fault = f"result {number} is off by {found.error:.1e} at {found.place}, {times}"
        return verdict


def _on_host(value):
    """NumPy arrays for those of any device, nested in tuples and lists or not."""
    if isinstance(value, (tuple, list)):
        return type(value)(_on_host(item) for item in value)
    return value.get() if hasattr(value, "get") and hasattr(value, "nbytes") else value


def _copied(value):
    """Copies of all arrays, in the memory layout that they have."""
    if isinstance(value, (tuple, list)):
        return type(value)(_copied(item) for item in value)
    return value.copy(order="K") if isinstance(value, np.ndarray) else value


def _converted(inputs: Inputs, dtype) -> Inputs:
    """The same numbers in another floating dtype, those of settings that are arrays too."""
    settings = {name: _cast(value, dtype) for name, value in inputs.settings.items()}
    return Inputs(_cast(inputs.args, dtype), settings)


def _cast(value, dtype):
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fV":
        return value.astype(dtype, copy=False)
    return value


def _mismatch(mine, exact, dtypes) -> str | None:
    """What is wrong with the kind, shape or dtype of a result, which floating-point numbers have one of `dtypes`."""
    if hasattr(exact, "nbytes") and not isinstance(exact, np.generic):
        expected = dtypes if exact.dtype.kind in "fV" else {exact.dtype}
        if not isinstance(mine, type(exact)):
            return f"is a {type(mine).__name__}; expected an array of shape {exact.shape}"
        if mine.shape != exact.shape:
            return f"has shape {mine.shape}; expected {exact.shape}"
        if mine.dtype not in expected:
            return f"is {mine.dtype}; expected {' or '.join(sorted(map(str, expected)))}"
    return None


@dataclass
class _Distance:
    """How far two arrays are apart: where `exact` is finite, and whether they agree where it is not."""

    error: float = 0.0
    largest: float = 0.0  # value of `exact`
    place: tuple[int, ...] = ()  # of the error
    strange: str | None = None  # a NaN or infinity on one side only


def _distance(mine, exact) -> _Distance:
    xp = array_module(exact) if hasattr(exact, "nbytes") else np
    mine, exact = xp.atleast_1d(mine), xp.atleast_1d(exact)
    distance = _Distance()
    step = max(1, 2**22 // max(1, exact[:1].size))  # in blocks: results as large as the logits of a batch come here
    for first in range(0, len(exact), step):
        m, e = (x[first : first + step].astype(np.float64, copy=False) for x in (mine, exact))
        if e.size == 0:
            continue
        finite = xp.isfinite(e)
        wrong = (xp.isfinite(m) != finite) | (~finite & (m != e) & ~(xp.isnan(m) & xp.isnan(e)))
        if wrong.any():
            place = tuple(map(int, np.unravel_index(int(wrong.argmax()), e.shape)))
            at = (place[0] + first, *place[1:])
            distance.strange = distance.strange or f"is {float(m[place]):.6g} at {at}; expected {float(e[place]):.6g}"
        with np.errstate(invalid="ignore"):
            difference = xp.where(finite & xp.isfinite(m), xp.abs(m - e), 0)
        distance.largest = max(distance.largest, float(xp.where(finite, xp.abs(e), 0).max()))
        worst = np.unravel_index(int(difference.argmax()), e.shape)
        if float(difference[worst]) > distance.error:
            distance.error = float(difference[worst])
            distance.place = (int(worst[0]) + first, *map(int, worst[1:]))
    return distance


def _dtype(dtype) -> np.dtype:
    try:
        return np.dtype(dtype)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, dtype))


def _eps(dtype: np.dtype) -> float:
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps)
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps)
