"""CuPy's universal functions: which loop is taken for which dtypes, as `cupy/_core/_kernel.pyx` chooses it."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from . import arrays

__all__ = ["Ufunc", "computed"]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_SCATTERED = {"int32", "int64", "float16", "float32", "float64", "uint32", "uint64"}  # what cupy.add.at takes


def _dtype(char: str) -> np.dtype:
    return _BFLOAT16 if char == "E" else np.dtype(char)


def _kind_score(scalar_type: type) -> int:
    """Booleans, integers, floats; what NumPy doesn't know, bfloat16, counts as more."""
    kinds = [(np.bool_,), (np.integer, int), (np.inexact, float, complex)]
    return next((score for score, types in enumerate(kinds) if issubclass(scalar_type, types)), 3)


class Ufunc:
    """One of them. `types` are the loops, as "ff->f", in the order in which they are tried."""

    def __init__(self, name: str, types: list[str], compute=None) -> None:
        self.name = self.__name__ = name
        self.loops = [tuple([_dtype(c) for c in side] for side in loop.split("->")) for loop in types]
        self.nin = len(self.loops[0][0])
        self.compute = compute or getattr(np, name)

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        if len(args) > self.nin:
            args, out = args[: self.nin], args[self.nin]
        if len(args) != self.nin:
            raise TypeError(f"wrong number of arguments for {self.name}")
        ins, outs = self._loop(args, dtype)
        values = [x._host.astype(t) if isinstance(x, arrays.ndarray) else np.asarray(x, t) for x, t in zip(args, ins)]
        found = computed(self.compute, *values)
        found = found if isinstance(found, tuple) else (found,)
        results = [np.asarray(y).astype(t, copy=False) for y, t in zip(found, outs)]
        if out is None:
            made = tuple(arrays.ndarray(y) for y in results)
            return made[0] if len(made) == 1 else made
        target = out[0] if isinstance(out, tuple) else out
        if not isinstance(target, arrays.ndarray):
            raise TypeError(f"out is a {type(target).__name__}, not a cupy.ndarray")
        if not np.can_cast(results[0].dtype, target.dtype, casting) and target.dtype.kind != results[0].dtype.kind:
            raise TypeError(f"can't cast output from {results[0].dtype} to {target.dtype} by {casting!r}")
        if np.broadcast_shapes(results[0].shape, target.shape) != target.shape:
            raise ValueError(f"non-broadcastable output operand of shape {target.shape} for {results[0].shape}")
        target._host[...] = results[0]
        return target

    def _loop(self, args: tuple, dtype) -> tuple[list, list]:
        if dtype is not None:
            wanted = [loop for loop in self.loops if loop[1][0] == np.dtype(dtype)]
            if not wanted:
                raise TypeError(f"no loop of {self.name} makes {dtype}")
            return wanted[0]
        types, weak = [], []
        for x in args:
            given = _operand(x)
            types.append(given[0])
            weak.append(given[1])
        strongest = max((_kind_score(t.type) for t, w in zip(types, weak) if w is None), default=-1)
        weakest = max((_kind_score(w) for w in weak if w is not None), default=-1)
        if weakest < 0 or strongest < weakest:
            weak = [None] * len(weak)
        for loop in self.loops:
            if all(_fits(t, w, to) for t, w, to in zip(types, weak, loop[0])):
                return loop
        raise TypeError(f"wrong type {types} of arguments for {self.name}")

    def at(self, a, indices, b=None) -> None:
        """`a[indices] += b` with each of equal indices counted, in any order."""
        if self.name not in ("add", "subtract", "maximum", "minimum"):
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        if a.dtype.name not in _SCATTERED:
            raise TypeError(f"cupy.{self.name}.at does not take {a.dtype}")
        values = b._host.astype(a.dtype) if isinstance(b, arrays.ndarray) else np.asarray(b, a.dtype)
        self.compute.at(a._host, arrays.wrapped(indices, a.shape), values)

    def reduce(self, array, axis=0, dtype=None, out=None, keepdims=False):
        """Sums and products alone."""
        if self.name not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return (array.sum if self.name == "add" else array.prod)(axis, dtype, out, keepdims)


def _operand(x) -> tuple[np.dtype, type | None]:
    """An operand's dtype, and the Python type of a number that promotes nothing."""
    if isinstance(x, arrays.ndarray):
        return x.dtype, None
    if type(x) in (int, float, complex):
        return np.dtype(type(x)) if type(x) is not int or x < 2**63 else np.dtype("uint64"), type(x)
    if type(x) is bool or isinstance(x, np.generic):
        return np.asarray(x).dtype, None
    raise TypeError(f"Unsupported type {type(x)}")


def _fits(given: np.dtype, weak: type | None, wanted: np.dtype) -> bool:
    if np.can_cast(given, wanted):
        return True
    try:
        return weak is not None and np.result_type(weak(0), wanted) == wanted
    except TypeError:
        return False


def computed(function, *args, **kwargs):
    """What NumPy finds, without the warnings that a GPU does not give."""
    with np.errstate(all="ignore"):
        return function(*args, **kwargs)
