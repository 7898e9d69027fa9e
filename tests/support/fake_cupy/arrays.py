"""CuPy's ndarray, with its manners and NumPy's memory; what is not here, CuPy's lacks too, or nobody has needed.

Its operators are in operators.py.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from .transfers import transfers

__all__ = ["function_named", "ndarray", "unwrapped", "wrapped"]


class ndarray:
    """An array on the pretended device. `_host` is where the numbers are; only this package looks at it."""

    __hash__ = None

    def __init__(self, host: np.ndarray, base: ndarray | None = None) -> None:
        self._host, self.base = host, base

    # What it is.

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    T = property(lambda self: self.transpose())
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data, device_id=0))
    device = property(lambda self: SimpleNamespace(id=0))

    @property
    def flags(self):
        f = self._host.flags
        return SimpleNamespace(
            c_contiguous=f.c_contiguous, f_contiguous=f.f_contiguous, owndata=self.base is None, fnc=f.fnc, forc=f.forc
        )

    @property
    def __cuda_array_interface__(self) -> dict:
        pointer = (self._host.ctypes.data, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": pointer, "strides": self.strides, "version": 3}

    # To the host: each of these waits for the device.

    def get(self, stream=None, order="C", out=None, blocking=True) -> np.ndarray:
        transfers.fetch()
        if out is None:
            return self._host.copy(order=order)
        out[...] = self._host
        return out

    def set(self, arr, stream=None) -> None:
        if not isinstance(arr, np.ndarray) or arr.shape != self.shape or arr.dtype != self.dtype:
            raise ValueError("set takes a NumPy array of the same shape and dtype")
        transfers.send()
        self._host[...] = arr

    def item(self):
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def tobytes(self, order="C") -> bytes:
        return self.get().tobytes(order)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    # As a container.

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self):
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index) -> ndarray:
        index = wrapped(index, self.shape)
        return self._same(self._host[(*index, ...)] if _lacks_ellipsis(index) else self._host[index])

    def __setitem__(self, index, value) -> None:
        basic, index = _is_basic(index), wrapped(index, self.shape)
        if isinstance(value, np.ndarray) and basic and value.shape != ():
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._host[index] = unwrapped(value)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    # Other arrays of the same numbers.

    def _same(self, host: np.ndarray) -> ndarray:
        """A new array, which knows what it is a view of."""
        host = np.asarray(host)
        shares = host.size and np.may_share_memory(host, self._host)
        return ndarray(host, (self if self.base is None else self.base) if shares else None)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if casting is not None or subok is not None:
            raise TypeError("casting and subok are not supported yet")
        if self.dtype == np.dtype(dtype) and not copy:
            return self
        with np.errstate(all="ignore"):
            return ndarray(self._host.astype(dtype, order=order))

    def copy(self, order="C"):
        return ndarray(self._host.copy(order=order))

    def view(self, dtype=None):
        return self._same(self._host.view() if dtype is None else self._host.view(dtype))

    def fill(self, value) -> None:
        if np.shape(unwrapped(value)) != ():
            raise ValueError("non-scalar ndarray cannot be used for fill")
        self._host.fill(unwrapped(value))

    def reshape(self, *shape, order="C", copy=None):
        return self._same(self._host.reshape(*shape, order=order))

    def ravel(self, order="C"):
        return self._same(self._host.ravel(order))

    def flatten(self, order="C"):
        return ndarray(self._host.flatten(order))

    def transpose(self, *axes):
        return self._same(self._host.transpose(*axes))

    def swapaxes(self, axis1, axis2):
        return self._same(self._host.swapaxes(axis1, axis2))

    def squeeze(self, axis=None):
        return self._same(self._host.squeeze(axis))

    def take(self, indices, axis=None, out=None):
        if axis is None:
            return self.ravel()[_as_indices(indices)]
        return self[(slice(None),) * (axis % self.ndim) + (_as_indices(indices),)]

    def repeat(self, repeats, axis=None):
        if isinstance(repeats, (ndarray, np.ndarray)):
            raise ValueError("'repeats' should be int or a sequence")
        return ndarray(self._host.repeat(repeats, axis))

    def diagonal(self, offset=0, axis1=0, axis2=1):
        return self._same(self._host.diagonal(offset, axis1, axis2))

    def nonzero(self):
        transfers.fetch()
        return tuple(ndarray(places) for places in self._host.nonzero())

    # Reductions: always an array, also of a single number.

    def _reduced(self, name: str, axis, dtype=None, out=None, keepdims=False, **more):
        host = self._host
        if name in ("mean", "var", "std") and dtype is None and host.dtype.name in ("float16", "bfloat16"):
            more["dtype"] = np.float32
        elif dtype is not None:
            more["dtype"] = dtype
        with np.errstate(all="ignore"):
            found = np.asarray(getattr(np, name)(host, axis=axis, keepdims=bool(keepdims), **more))
        if name in ("mean", "var", "std") and dtype is None and host.dtype.kind not in "iub":
            found = found.astype(host.dtype, copy=False)
        if out is None:
            return ndarray(found)
        out._host[...] = found
        return out

    def sum(self, axis=None, dtype=None, out=None, keepdims=False):
        return self._reduced("sum", axis, dtype, out, keepdims)

    def prod(self, axis=None, dtype=None, out=None, keepdims=None):
        return self._reduced("prod", axis, dtype, out, keepdims)

    def mean(self, axis=None, dtype=None, out=None, keepdims=False):
        if not math.prod(self.shape):
            return ndarray(self._reduced("sum", axis, dtype, None, keepdims)._host * np.nan)
        return self._reduced("mean", axis, dtype, out, keepdims)

    def var(self, axis=None, dtype=None, out=None, ddof=0, keepdims=False):
        return self._reduced("var", axis, dtype, out, keepdims, ddof=ddof)

    def std(self, axis=None, dtype=None, out=None, ddof=0, keepdims=False):
        return self._reduced("std", axis, dtype, out, keepdims, ddof=ddof)

    def max(self, axis=None, out=None, keepdims=False):
        return self._reduced("max", axis, None, out, keepdims)

    def min(self, axis=None, out=None, keepdims=False):
        return self._reduced("min", axis, None, out, keepdims)

    def argmax(self, axis=None, out=None, dtype=None, keepdims=False):
        return self._reduced("argmax", axis, None, out, keepdims)

    def argmin(self, axis=None, out=None, dtype=None, keepdims=False):
        return self._reduced("argmin", axis, None, out, keepdims)

    def all(self, axis=None, out=None, keepdims=False):
        return self._reduced("all", axis, None, out, keepdims)

    def any(self, axis=None, out=None, keepdims=False):
        return self._reduced("any", axis, None, out, keepdims)

    def cumsum(self, axis=None, dtype=None, out=None):
        return ndarray(self._host.cumsum(axis=axis, dtype=dtype))

    def argsort(self, axis=-1, kind=None):
        transfers.refuse("sorts, which wait,")
        if kind not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        if self.dtype.kind == "V":
            raise NotImplementedError(f"sorting arrays with dtype '{self.dtype}' is not supported")
        return ndarray(self._host.argsort(axis=axis, kind="stable"))

    def clip(self, min=None, max=None, out=None):
        return function_named("clip")(self, min, max, out=out)

    def round(self, decimals=0, out=None):
        return ndarray(self._host.round(decimals))

    def dot(self, b, out=None):
        transfers.refuse_cublas()
        return function_named("dot")(self, b, out=out)

    # Arithmetic goes through the ufuncs, also where NumPy is asked for it.

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        function = function_named(ufunc.__name__)
        if "out" in kwargs:
            kwargs["out"] = kwargs["out"][0]
        return (function if method == "__call__" else getattr(function, method))(*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if not all(issubclass(t, ndarray) for t in types):
            return NotImplemented
        return function_named(function.__name__)(*args, **kwargs)


def function_named(name: str):
    """What CuPy has under that name; AttributeError where it has nothing."""
    from .functions import table

    return table()[name]


# Indices. CuPy takes NumPy's and lists of numbers too, and an integer out of range comes in again at the other end.


def unwrapped(value):
    """What NumPy may see of it."""
    if isinstance(value, (tuple, list)):
        return type(value)(unwrapped(part) for part in value)
    if isinstance(value, slice):
        return slice(*(unwrapped(part) for part in (value.start, value.stop, value.step)))
    return value._host if isinstance(value, ndarray) else value


def wrapped(index, shape: tuple[int, ...]) -> tuple:
    """An index as NumPy takes it, its integer arrays brought into range."""
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = [_as_indices(part) if isinstance(part, (list, np.ndarray)) else part for part in parts]
    taken = [0 if p is None or p is Ellipsis else p.ndim if _is_mask(p) else 1 for p in parts]
    axis, out = 0, []
    for part, count in zip(parts, taken):
        if part is Ellipsis:
            axis += len(shape) - sum(taken)
        elif isinstance(part, ndarray) and not _is_mask(part):
            if part.dtype.kind not in "iu":
                raise IndexError("arrays used as indices must be of integer or boolean type")
            part = part._host % shape[axis] if axis < len(shape) and shape[axis] else part._host
        elif isinstance(part, ndarray):
            part = part._host
            transfers.fetch()  # how many there are has to be known
        out.append(part)
        axis += count
    return tuple(out)


def _as_indices(part) -> ndarray:
    if isinstance(part, ndarray):
        return part
    transfers.send()
    part = np.asarray(part)
    return ndarray(part.astype(np.int32) if part.size == 0 and part.dtype.kind == "f" else part)


def _is_mask(part) -> bool:
    return isinstance(part, ndarray) and part.dtype.kind == "b"


def _is_basic(index) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return not any(isinstance(part, (ndarray, np.ndarray, list)) for part in parts)


def _lacks_ellipsis(index: tuple) -> bool:
    """Whether an index may name a single element, of which NumPy would give the number and no view."""
    return not any(part is Ellipsis for part in index)
