"""Sorting by places: stable, and alike with NumPy and CuPy."""

from __future__ import annotations

import numpy as np

from .registry import array_module

__all__ = ["argsort", "first_places"]

_PLACE = np.int64(2**32 - 1)


def argsort(x, axis: int = -1):
    """The places that sort `x`; equal elements keep their order."""
    xp = array_module(x)
    if xp is np and _has_keys(x.dtype) and x.ndim and x.size:
        keys = _keys(np.moveaxis(x, axis, -1))
        keys.sort(axis=-1)
        keys &= _PLACE
        return np.moveaxis(keys, -1, axis)
    if xp is not np and x.dtype.kind == "V":
        x = x.astype("float32")  # CuPy sorts no bfloat16
    return xp.argsort(x, axis=axis, kind="stable")


def first_places(x, k: int, axis: int = -1):
    """The places of the `k` smallest along `axis`, the smallest first; of equal elements those that come first."""
    xp = array_module(x)
    if xp is not np or not 0 < k < x.shape[axis]:
        order = xp.moveaxis(argsort(x, axis), axis, 0)[:k]
        return xp.ascontiguousarray(xp.moveaxis(order, 0, axis))
    x = np.moveaxis(x.astype("float32") if x.dtype.kind == "V" else x, axis, -1)
    highest = np.partition(x, k - 1, axis=-1)[..., k - 1 : k]
    hits = np.flatnonzero(x <= highest)
    if hits.size == highest.size * k and not np.isnan(highest).any():  # nearly always: no more than k
        places = hits.reshape(*x.shape[:-1], k) % x.shape[-1]
        order = argsort(np.take_along_axis(x, places, -1))
        places = np.take_along_axis(places, order, -1)
    else:
        places = argsort(x)[..., :k]
    return np.moveaxis(places, -1, axis)


def _has_keys(dtype) -> bool:
    """Whether an element and its place fit into 64 bits, whatever they are."""
    return dtype.itemsize <= (2 if dtype.kind == "u" else 4) and dtype.kind in "fVibu"


def _keys(x):
    """Integers of 64 bits that lie as the elements do, equal ones as their places along the last axis.

    Above are the element's bits, below its place, by which a key also says what it stands for: to sort such keys takes
    NumPy a fraction of the time of a stable sort of the places.
    """
    if x.dtype.kind in "fV":
        x = x.astype(np.float32) + np.float32(0)  # no -0, which is equal to 0
        wrong = np.isnan(x)
        if wrong.any():
            x[wrong] = np.nan  # a positive one, which lies above all
        bits = x.view(np.int32)
        x = bits ^ ((bits >> 31) & np.int32(2**31 - 1))
    keys = x.astype(np.int64, order="C")
    keys <<= 32
    keys |= np.arange(x.shape[-1])
    return keys
