"""What NumPy and CuPy do differently, done alike: used instead of the library's own function where it matters.

CuPy 14.2 has no bfloat16 in `where`, `clip` and `add.at`, an erf that widens float16, and no `initial` in
`max`; and indices that name nothing come in again at the other end instead of raising. (Of products: `products.py`.)
What it does alike is called as ever, through `array_module`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from .checks import is_half
from .recording import is_recording
from .registry import array_module

__all__ = [
    "add_at", "check_places", "check_range", "clip", "concatenate", "erf", "kind_of", "largest", "unchecked_ranges",
    "where",
]  # fmt: skip


_JOINED_AT_ONCE = 8


def where(condition, a, b):
    """a where `condition` holds, else b, in the dtype of both; one of them may be a number."""
    xp = _module_of(condition, a, b)
    if xp is np:
        y = _by_bits(condition, a, b)
        return np.where(condition, a, b) if y is None else y
    y = xp.where(condition, a, b)
    kept = next((x.dtype for x in (a, b) if getattr(getattr(x, "dtype", None), "kind", "") == "V"), None)
    others = [x.dtype for x in (a, b) if hasattr(x, "dtype") and x.dtype != kept]
    return y if kept is None or others else y.astype(kept)


_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}
_FEW = 2048


def _by_bits(condition, a, b):
    """NumPy's `where` in a fraction of its time, for it branches at every element; None for what it does not fit."""
    if type(a) in (int, float):
        condition, a, b = np.logical_not(condition), b, a
    if not (isinstance(condition, np.ndarray) and isinstance(a, np.ndarray) and condition.dtype == bool):
        return None
    if a.size < _FEW or a.dtype.kind != "f" or a.itemsize not in _INTEGERS:
        return None
    if not (type(b) in (int, float) or (isinstance(b, np.ndarray) and b.dtype == a.dtype)):
        return None
    bits, others = (np.asarray(x, a.dtype).view(_INTEGERS[a.itemsize]) for x in (a, b))
    mask = condition.astype(bits.dtype)
    np.negative(mask, out=mask)  # all bits where it holds
    if others.ndim == 0 and others == 0:
        return (bits & mask).view(a.dtype)
    return ((bits ^ others) & mask ^ others).view(a.dtype)


def _module_of(*values):
    """NumPy, or CuPy if one is its array; beside arrays there may be numbers, NumPy's too."""
    modules = [array_module(x) for x in values if hasattr(x, "dtype")]
    return next((module for module in modules if module is not np), np)


def clip(x, lowest, highest):
    """x, but at least `lowest` and at most `highest` (numbers or arrays; None: no bound)."""
    xp = array_module(x)
    if xp is np or x.dtype.kind not in "Vb":
        return xp.clip(x, lowest, highest)
    x = x if lowest is None else xp.maximum(x, lowest)
    return x if highest is None else xp.minimum(x, highest)


def concatenate(arrays, axis: int):
    """The arrays joined along an axis. (Of more than eight CuPy sends a table of addresses: that can't be recorded.)"""
    xp = _module_of(*arrays)
    if xp is np or not is_recording() or len(arrays) <= _JOINED_AT_ONCE:
        return xp.concatenate(arrays, axis=axis)
    parts = [arrays[i : i + _JOINED_AT_ONCE] for i in range(0, len(arrays), _JOINED_AT_ONCE)]
    return concatenate([xp.concatenate(part, axis=axis) for part in parts], axis)


def largest(x, axis, keepdims: bool, initial: float):
    """The largest along an axis, several, or all (None), but at least `initial`; of none at all `initial`."""
    xp = array_module(x)
    if xp is np:
        return x.max(axis=axis, keepdims=keepdims, initial=initial)
    if x.size:
        return xp.maximum(x.max(axis=axis, keepdims=keepdims), x.dtype.type(initial))
    return xp.full_like(x.sum(axis=axis, keepdims=keepdims), initial)


def erf(x):
    """The error function of an array's elements, in its dtype; of integers in float64."""
    dtype = x.dtype if x.dtype.kind in "fV" else np.float64
    if array_module(x) is np:  # NumPy has no erf; Python's is exact, one number at a time
        return np.vectorize(math.erf, otypes=[np.float64])(x).astype(dtype)
    from cupyx.scipy.special import erf

    return erf(x.astype(dtype, copy=False)).astype(dtype, copy=False)


def add_at(target, index, values) -> None:
    """target[index] += values, in place, each of equal indices counted. (On a GPU in no fixed order.)

    16 bits are summed up in float32, and rounded once.
    """
    xp = array_module(target)
    if xp is np and kind_of(index) == "b":
        target[index] += values  # none is equal to another
        return
    if xp is np and target.flags.c_contiguous and _names_elements(index, target.ndim):
        if isinstance(index, tuple):
            for axis, (part, n) in enumerate(zip(index, target.shape)):
                check_places(part, n, axis)
            index = np.ravel_multi_index(index, target.shape, mode="wrap")
        target, values = target.reshape(-1), np.broadcast_to(values, index.shape).reshape(-1)
        index = index.reshape(-1)
    if not is_half(target.dtype):
        xp.add.at(target, index, values)
        return
    total = target.astype("float32")
    xp.add.at(total, index, values.astype("float32"))
    target[...] = total


def _names_elements(index, ndim: int) -> bool:
    """Whether there is an array of integers for each axis: NumPy is many times as fast where both have one axis."""
    parts = index if isinstance(index, tuple) else (index,)
    return len(parts) == ndim and all(kind_of(part) in "iu" for part in parts)


def kind_of(part) -> str:
    """The kind of the dtype of a part of an index that is an array, "-" for any other."""
    return part.dtype.kind if hasattr(part, "dtype") and hasattr(part, "ndim") else "-"


_unchecked = ContextVar("_unchecked", default=False)


@contextmanager
def unchecked_ranges() -> Iterator[None]:
    """Within it `check_range` trusts arrays of the GPU, at which it could only look by waiting for them.

    For indices that were looked at before: on the host, or in the forward pass. Those on the host are looked at always.
    """
    token = _unchecked.set(True)
    try:
        yield
    finally:
        _unchecked.reset(token)


def check_range(indices, length: int, error: Callable[[int, int], Exception], *, counted=None, lowest: int = 0) -> None:
    """Raises `error(position, index)` for the first of the flattened `indices` outside lowest..length-1.

    Where `counted`, booleans of their shape, is False, they may be anything. On a GPU this waits for the indices, once.
    """
    if indices.size == 0 or (_unchecked.get() and array_module(indices) is not np):
        return
    if counted is None and array_module(indices) is np and indices.min() >= lowest and indices.max() < length:
        return  # nearly always
    wrong = (indices < lowest) | (indices >= length)
    wrong = wrong if counted is None else wrong & counted
    if bool(wrong.any()):
        position = int(wrong.argmax())
        raise error(position, int(indices.reshape(-1)[position]))


def check_places(indices, length: int, axis: int) -> None:
    """IndexError, as NumPy raises it, for indices that name no place along an axis; negative ones count from behind."""

    def error(_, index):
        return IndexError(f"index {index} is out of bounds for axis {axis} with size {length}")

    check_range(indices, length, error, lowest=-length)
