"""Elements by their places along an axis: gathering, scattering and sorting."""

from __future__ import annotations

import math
from operator import index

import numpy as np
from minilm_kernels import ordering, portable

from minilm.autograd import Tensor
from minilm.backend import array_module

from .axes import axis_of
from .indexing import getitem, place, raw, whole

__all__ = ["gather", "scatter_add", "sort", "topk"]


def _along(name: str, indices, axis: int, shape):
    """`indices` along `axis` of an array of `shape`, as those of its elements in the flattened array."""
    indices, ndim = whole(indices), len(shape)
    axis = axis_of(axis, ndim)
    fits = indices.ndim == ndim and all(n in (1, m) or a == axis for a, (n, m) in enumerate(zip(indices.shape, shape)))
    if not fits:
        raise ValueError(
            f"{name} needs indices of x's shape {tuple(shape)}, or of another length along axis {axis}; "
            f"they have shape {indices.shape}"
        )
    length = shape[axis]
    portable.check_places(indices, length, axis)
    xp = array_module(indices)
    indices = indices.astype(np.int64, copy=False)
    if xp is not np or (indices.size and indices.min() < 0):
        indices = xp.where(indices < 0, indices + length, indices)
    return _flat(indices, axis, shape)


def _flat(places, axis: int, shape):
    """Places (none negative) along `axis` of an array of `shape`, as those in the flattened one."""
    xp = array_module(places)
    before, length, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    whole = (*shape[:axis], places.shape[axis], *shape[axis + 1 :])
    places = xp.broadcast_to(places, whole).reshape(before, places.shape[axis], after)
    if after > 1:
        places = places * after + xp.arange(after)
    return (places + (xp.arange(before) * (length * after)).reshape(-1, 1, 1)).reshape(whole)


def _picked(x, places):
    """The elements of the flattened x at places that were looked at before."""
    with portable.unchecked_ranges():
        return getitem(x.reshape(-1), places)


def gather(x, indices, axis: int = -1):
    """x[.., indices[.., j, ..], ..]: for each element of `indices`, the element of x there along `axis`.

    As NumPy's `take_along_axis`: x and `indices` have equally many axes, and agree in all but `axis` (or have 1 there).

    >>> gather(np.array([[1, 2, 3], [4, 5, 6]]), np.array([[2], [0]]), axis=1).tolist()
    [[3], [4]]
    """
    return _picked(x, _along("gather", indices, axis, tuple(x.shape)))


def scatter_add(x, indices, values, axis: int = -1):
    """x with `values` added at `indices` along `axis` (the reverse of `gather`); x itself is not changed.

    >>> scatter_add(np.zeros(3), np.array([1, 1]), np.array([2.0, 3.0]), axis=0).tolist()
    [0.0, 5.0, 0.0]
    """
    if not hasattr(values, "shape"):  # numbers do not widen floats, and are not cut off to integers
        values = array_module(raw(x)).asarray(values, x.dtype if x.dtype.kind in "fV" else None)
    flat = _along("scatter_add", indices, axis, tuple(x.shape))
    return x + place(values, flat, (x.size,)).reshape(x.shape)


def sort(x, axis: int = -1):
    """x in ascending order along `axis`.

    >>> import numpy as np
    >>> sort(np.array([[3, 1, 2]])).tolist()
    [[1, 2, 3]]
    """
    order = ordering.argsort(raw(x), axis)
    return _picked(x, _flat(order, axis_of(axis, x.ndim), tuple(x.shape)))


def topk(x, k: int, axis: int = -1, largest: bool = True):
    """The k largest (or smallest) elements along `axis`, in order, and their places. Returns (values, indices).

    >>> values, places = topk(np.array([3.0, 9.0, 4.0]), 2)
    >>> values.tolist(), places.tolist()
    ([9.0, 4.0], [1, 2])
    """
    axis = axis_of(axis, x.ndim)
    if not 0 <= index(k) <= x.shape[axis]:
        raise ValueError(f"topk needs 0 <= k <= {x.shape[axis]}, the length of axis {axis}; got k={k}")
    values = raw(x)
    falling = ~values if values.dtype.kind in "iub" else -values  # ~: no overflow, also of unsigned ones
    places = ordering.first_places(falling if largest else values, index(k), axis)
    top = _picked(x, _flat(places, axis, tuple(x.shape)))
    return top, Tensor(places) if isinstance(x, Tensor) else places
