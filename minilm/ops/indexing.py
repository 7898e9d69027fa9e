"""Picking elements out, and the reverse of it: where one is picked twice, its gradients add up."""

from __future__ import annotations

import minilm_kernels as kernels
import numpy as np
from minilm_kernels import portable
from minilm_kernels.portable import kind_of
from minilm_kernels.recording import is_recording

from minilm.autograd import Array, Placed, Tensor, op
from minilm.backend import array_module, check_together, device_of, to_device

from .axes import axis_of

__all__ = ["embedding", "getitem", "place", "repeat", "take", "tril", "triu"]


def raw(index):
    """An index with arrays in the place of tensors and lists."""
    if isinstance(index, tuple):
        return tuple(raw(part) for part in index)
    if isinstance(index, list):
        return np.asarray(index) if index else np.empty(0, np.intp)
    return index.data if isinstance(index, Tensor) else index


def _is_basic(index) -> bool:
    """Whether an index picks no element twice: only slices, numbers, None and Ellipsis."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice)) for part in parts)


def _placed(g, index, shape):
    """The gradient of `x[index]` for an x of `shape`."""
    if isinstance(g, Tensor):
        return place(g, index, shape)
    if _is_basic(index):
        return Placed(g, index, shape)
    if kind_of(index) in "iu" and len(shape) == 2:  # rows of a table, negative ones counted from behind
        return _placed_rows(g, to_device(index, device_of(g)) % max(shape[0], 1), shape)
    return Placed(g, index, shape, portable.add_at)


@op
def _getitem(x: Array, index):
    return x[index]


@op(view=True)
def _slice(x: Array, index):
    return x[index]


@_getitem.gradient
def _(g, x_shape, index):
    return _placed(g, index, x_shape)


@_slice.gradient
def _(g, x_shape, index):
    return _placed(g, index, x_shape)


def getitem(x, index):
    """x[index]: slices, numbers, integer arrays and boolean masks, as in NumPy.

    >>> import minilm
    >>> x = minilm.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> x[[0, 0, 1], 1].sum().backward()  # what is picked twice has twice the gradient
    >>> x.grad.tolist()
    [[0.0, 2.0], [0.0, 1.0]]
    """
    index = raw(index)
    if _is_basic(index):
        return _slice(x, index)
    if device_of(getattr(x, "_data", x)) == "cuda":
        _check_range(index if isinstance(index, tuple) else (index,), x.shape)
    return _getitem(x, index)


def _check_range(index: tuple, shape: tuple[int, ...]) -> None:
    """IndexError for integers that name no place along their axis, as NumPy raises it."""
    taken = [0 if p is None or p is Ellipsis else p.ndim if kind_of(p) == "b" else 1 for p in index]
    axis = 0
    for part, count in zip(index, taken):
        if part is Ellipsis:
            axis += len(shape) - sum(taken)
        elif kind_of(part) in "iu" and axis < len(shape):
            portable.check_places(part, shape[axis], axis)
        axis += count


@op
def place(values: Array, index, shape):
    """An array of zeros of `shape` with `values` added at `index`."""
    return _placed(values, index, shape).dense()


@place.gradient
def _(g, index):
    return getitem(g, index)


def take(x, indices, axis=None):
    """The slices of x at `indices` along `axis` (None: the elements of the flattened x); negative ones from behind.

    >>> take(np.array([[1, 2], [3, 4]]), np.array([1, -2]), axis=0).tolist()
    [[3, 4], [1, 2]]
    """
    if axis is None:
        return getitem(x.reshape(-1), whole(indices))
    return getitem(x, (slice(None),) * axis_of(axis, x.ndim) + (whole(indices),))


def whole(indices, name="indices"):
    """Indices as an array of integers, so that a plain number picks without a view."""
    indices = raw(indices)
    array = indices if hasattr(indices, "dtype") else np.asarray(indices)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array


def repeat(x, repeats, axis=None):
    """Each element (slice along `axis`) repeated `repeats` times: one number, or one for each.

    >>> repeat(np.array([1, 2]), np.array([2, 1])).tolist()
    [1, 1, 2]
    """
    length = x.size if axis is None else x.shape[axis_of(axis, x.ndim)]
    counts = to_device(whole(repeats, "repeats"), "cpu")
    if counts.min(initial=0) < 0 or counts.shape not in ((), (1,), (length,)):
        raise ValueError(
            f"repeats is one number or {length}, one for each element, and none is negative; got {counts.tolist()}"
        )
    return take(x, np.repeat(np.arange(length), counts), axis)


@op
def _embedding(indices, weight: Array, padding_idx):
    return weight[indices]


def embedding(indices, weight, padding_idx: int | None = None):
    """weight[indices]: rows of a table (V, C) for integer `indices` of any shape; result (*indices.shape, C).

    The row `padding_idx` gets no gradient from here. Indices on the host are looked at there and sent to where the
    table is; to look at those on a GPU it has to wait for them (`backend.unchecked_ranges()` trusts them instead).

    Raises IndexError for an index outside 0..V-1.

    >>> embedding(np.array([[2, 0]]), np.arange(6.0).reshape(3, 2)).tolist()
    [[[4.0, 5.0], [0.0, 1.0]]]
    """
    if weight.ndim != 2:
        raise ValueError(f"embedding needs a table (V, C); the weight has shape {tuple(weight.shape)}")
    V, table = weight.shape[0], raw(weight)
    indices = raw(indices)
    indices = indices if hasattr(indices, "dtype") else np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"embedding needs integer indices, got {indices.dtype}")
    portable.check_range(
        indices, V, lambda _, bad: IndexError(f"embedding index {bad} is outside the table's rows, 0..{V - 1}")
    )
    if device_of(table) == "cpu":
        check_together("embedding", (indices, table))
    return _embedding(to_device(indices, device_of(table)), weight, padding_idx)


@_embedding.gradient("weight")
def _(g, indices, weight_shape, padding_idx):
    if padding_idx is not None:
        real = indices != padding_idx
        g, indices = g[real], indices[real]
    if isinstance(g, Tensor):
        return place(g, indices, weight_shape)
    return _placed_rows(g, indices, weight_shape)


def _placed_rows(g, indices, shape) -> Placed:
    """The gradient of the rows of a table of `shape` that non-negative `indices` name."""
    rows = indices.reshape(-1)
    return Placed(g.reshape(rows.size, shape[1]), rows, shape, _add_rows)


def _add_rows(target, rows, values) -> None:
    # CUDA's own kernel sorts the rows, and the library that sorts waits for the card; the reference adds atomically.
    implementation = "reference" if is_recording() else "auto"
    with portable.unchecked_ranges():  # the forward pass has looked at them
        kernels.embedding_backward(values, rows, target, implementation=implementation)


@op
def tril(x: Array, k=0):
    """x with zeros above the k-th diagonal of its last two axes.

    >>> tril(np.ones((2, 2))).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    return array_module(x).tril(x, k)


@tril.gradient
def _(g, k):
    return tril(g, k)


@op
def triu(x: Array, k=0):
    """x with zeros below the k-th diagonal of its last two axes.

    >>> import numpy as np
    >>> triu(np.ones((3, 3)), k=1).tolist()
    [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    return array_module(x).triu(x, k)


@triu.gradient
def _(g, k):
    return triu(g, k)
