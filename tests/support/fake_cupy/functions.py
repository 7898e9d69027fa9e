"""CuPy's functions: NumPy's of the same name, for the device's arrays and with the arguments that CuPy's take."""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path

import numpy as np

from .arrays import ndarray, unwrapped
from .transfers import transfers
from .ufuncs import Ufunc, computed

__all__ = ["API", "table"]

API = json.loads(Path(__file__).with_name("api.json").read_text())
# What takes arrays of the host, and sends them to the device.
_SENDS = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "tril", "triu"}
# What sends a table of the arrays' addresses where they are more than eight, and what calls cuBLAS.
_JOINS, _PRODUCTS = {"concatenate", "stack", "vstack", "hstack"}, {"dot", "inner", "outer", "tensordot", "vdot"}
# What is about shapes and dtypes, and gives no array.
_ABOUT = {"can_cast", "ndim", "result_type", "shape", "size"}
_CLIP = [f"{c * 3}->{c}" for c in "?bBhHiIlLqQefd"]  # without bfloat16, as `where`


@functools.cache
def table() -> dict:
    """Name to function, for all that the stand-in has."""
    api = API
    found = {name: Ufunc(name, _known(types)) for name, types in api["ufuncs"].items() if hasattr(np, name)}
    found["_where"] = Ufunc("_where", api["ufuncs"]["_where"], np.where)
    found["_clip"] = Ufunc("_clip", _CLIP, np.clip)
    for name, signature in api["functions"].items():
        if name not in found and hasattr(np, name):
            found[name] = _function(name, inspect.signature(eval(f"lambda {signature}: None")))
    found["isin"] = _function("isin", inspect.signature(lambda element, test_elements, **settings: None))
    return {**found, "where": _where, "clip": _clip, "matmul": _matmul, "repeat": _repeat, "argsort": _argsort}


def _known(types: list[str]) -> list[str]:
    return [loop for loop in types if "V" not in loop]


def _function(name: str, signature: inspect.Signature):
    compute = getattr(np, name)

    @functools.wraps(compute)
    def call(*args, **kwargs):
        given = signature.bind(*args, **kwargs)  # TypeError for what CuPy does not take
        if name in _ABOUT:
            return compute(*(x.dtype if isinstance(x, ndarray) else x for x in args), **kwargs)
        if name in _SENDS:
            if isinstance(args[0], np.ndarray) and (args[0].ndim or not transfers.capturing):  # a number is filled in
                transfers.send()
        else:
            _refuse_host_arrays(name, given.args + tuple(given.kwargs.values()))
            if name in _JOINS and len(args[0]) > 8:
                transfers.refuse("tables of addresses, H2D transfers,")
            if name in _PRODUCTS:
                transfers.refuse_cublas()
        kwargs.pop("blocking", None)
        return _wrapped(computed(compute, *unwrapped(args), **{k: unwrapped(v) for k, v in kwargs.items()}), args)

    return call


def _refuse_host_arrays(name: str, args) -> None:
    for x in args:
        if isinstance(x, np.ndarray):
            raise TypeError(f"Unsupported type {type(x)} for cupy.{name}")
        if isinstance(x, (tuple, list)):
            _refuse_host_arrays(name, x)


def _wrapped(found, args):
    """The result as arrays of the device, which know whether they are views of an argument."""
    if isinstance(found, (tuple, list)):
        return type(found)(_wrapped(part, args) for part in found)
    if not isinstance(found, (np.ndarray, np.generic)):
        return found
    host = np.asarray(found)
    flat = [x for arg in args for x in (arg if isinstance(arg, (tuple, list)) else (arg,)) if isinstance(x, ndarray)]
    for x in flat:
        if host is x._host:
            return x
        if host.size and np.may_share_memory(host, x._host):
            return ndarray(host, x if x.base is None else x.base)
    return ndarray(host if isinstance(found, np.generic) or not args else _owned(host, args))


def _owned(host: np.ndarray, args) -> np.ndarray:
    """A copy of what still is the caller's memory on the host."""
    return host.copy() if any(isinstance(x, np.ndarray) and np.may_share_memory(host, x) for x in args) else host


def _where(condition, x=None, y=None):
    if x is None or y is None:
        raise ValueError("Must provide both 'x' and 'y': how many places there are would have to be fetched")
    return table()["_where"](condition.astype("?", copy=False), x, y)


def _clip(a, a_min, a_max, out=None):
    ends = {"f": ("-inf", "inf")}.get(a.dtype.kind)
    if ends is not None:
        lowest, highest = (a.dtype.type(end) for end in ends)
    elif a.dtype.kind in "iu":
        lowest, highest = np.iinfo(a.dtype).min, np.iinfo(a.dtype).max
    else:
        lowest = highest = None
    return table()["_clip"](a, lowest if a_min is None else a_min, highest if a_max is None else a_max, out=out)


def _matmul(a, b, out=None):
    for x in (a, b):
        if not isinstance(x, ndarray):
            raise TypeError(f"Unsupported type {type(x)} for cupy.matmul")
    transfers.refuse_cublas()
    if max(a.ndim, b.ndim) > 2 and "bfloat16" in (a.dtype.name, b.dtype.name):
        raise RuntimeError("CuPy 14.2 ends the process here: a product of bfloat16 with more than two axes")
    found = computed(np.matmul, a._host, b._host)
    return ndarray(np.asarray(found).astype(np.promote_types(a.dtype, b.dtype), copy=False))


def _repeat(a, repeats, axis=None):
    return a.repeat(repeats, axis)


def _argsort(a, axis=-1, kind=None):
    return a.argsort(axis, kind)
