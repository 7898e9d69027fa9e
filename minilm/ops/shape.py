"""Operations that move elements about and change none of them."""

from __future__ import annotations

import math
from operator import index

import numpy as np
from minilm_kernels import portable
from minilm_kernels.checks import common_dtype

from minilm.autograd import Array, Tensor, op
from minilm.backend import array_module, device_of
from minilm.backend import to_device as move

from .axes import axes_of, axis_of

__all__ = [
    "broadcast_to", "concatenate", "expand", "expand_dims", "flatten", "flip", "moveaxis", "pad", "permute", "reshape",
    "split", "squeeze", "stack", "swapaxes", "to_device", "transpose", "unsqueeze",
]  # fmt: skip


@op(view=True)
def reshape(x: Array, shape):
    """The elements in the same order in another shape; one length may be -1.

    >>> import numpy as np
    >>> reshape(np.arange(6), (2, -1)).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    return x.reshape(shape)


@reshape.gradient
def _(g, x_shape):
    return g.reshape(x_shape)


@op(view=True)
def transpose(x: Array, axes=None):
    """The axes in the order `axes` (None: reversed).

    >>> import numpy as np
    >>> transpose(np.zeros((2, 3, 4)), (0, 2, 1)).shape
    (2, 4, 3)
    """
    return x.transpose(axes)


@transpose.gradient
def _(g, axes):
    if axes is None:
        return g.transpose()
    return g.transpose(tuple(int(i) for i in np.argsort([a % g.ndim for a in axes])))


def as_tuple(lengths: tuple) -> tuple:
    """What was given as several numbers or as one sequence of them."""
    return tuple(lengths[0]) if len(lengths) == 1 and hasattr(lengths[0], "__len__") else lengths


def permute(x, *axes):
    """The axes in the order given, as several numbers or one tuple: `permute(x, 0, 2, 1)`.

    >>> import numpy as np
    >>> permute(np.zeros((2, 3, 4)), 2, 0, 1).shape
    (4, 2, 3)
    """
    return transpose(x, as_tuple(axes))


@op(view=True)
def swapaxes(x: Array, axis1, axis2):
    """Two axes exchanged.

    >>> import numpy as np
    >>> swapaxes(np.zeros((2, 3, 4)), 1, 2).shape
    (2, 4, 3)
    """
    return x.swapaxes(axis1, axis2)


@swapaxes.gradient
def _(g, axis1, axis2):
    return g.swapaxes(axis1, axis2)


def moveaxis(x, source, destination):
    """Axes (a number or several) moved to other places; the others keep their order.

    >>> import numpy as np
    >>> moveaxis(np.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    sources, destinations = axes_of(source, x.ndim), axes_of(destination, x.ndim)
    if len(sources) != len(destinations):
        raise ValueError(f"moveaxis needs as many destinations as sources; got {destination} for {source}")
    order = [a for a in range(x.ndim) if a not in sources]
    for place, axis in sorted(zip(destinations, sources)):
        order.insert(place, axis)
    return transpose(x, tuple(order))


@op(view=True)
def broadcast_to(x: Array, shape):
    """x repeated to `shape` without a copy.

    >>> import minilm
    >>> x = minilm.tensor([1.0, 2.0], requires_grad=True)
    >>> broadcast_to(x, (3, 2)).sum().backward()
    >>> x.grad.tolist()
    [3.0, 3.0]
    """
    return array_module(x).broadcast_to(x, shape)


@broadcast_to.gradient
def _(g):
    return g  # the engine sums over the axes that were repeated


def expand(x, *shape):
    """As `broadcast_to`, with -1 for a length that stays: `expand(x, 4, -1)`.

    >>> import numpy as np
    >>> expand(np.array([[1], [2]]), -1, 3).tolist()
    [[1, 1, 1], [2, 2, 2]]
    """
    shape = as_tuple(shape)
    extra = len(shape) - x.ndim
    if any(n == -1 and i < extra for i, n in enumerate(shape)):
        raise ValueError(f"expand can't keep (-1) a new axis: shape {x.shape} to {shape}")
    return broadcast_to(x, tuple(x.shape[i - extra] if n == -1 else n for i, n in enumerate(shape)))


def squeeze(x, axis=None):
    """x without axes of length one: those named, or all. ValueError if one named is longer.

    >>> import numpy as np
    >>> squeeze(np.zeros((1, 3, 1)), axis=0).shape
    (3, 1)
    """
    if axis is None:
        axes = {a for a, n in enumerate(x.shape) if n == 1}
    else:
        axes = axes_of(axis, x.ndim)
        long = [a for a in axes if x.shape[a] != 1]
        if long:
            raise ValueError(f"squeeze needs axes of length 1; axis {long[0]} of shape {x.shape} is longer")
    return reshape(x, tuple(n for a, n in enumerate(x.shape) if a not in axes))


def expand_dims(x, axis):
    """x with a new axis of length one at `axis` (a number, or several: their places in the result).

    >>> import numpy as np
    >>> expand_dims(np.zeros((2, 3)), (0, 2)).shape
    (1, 2, 1, 3)
    """
    count = len(axis) if hasattr(axis, "__len__") else 1
    axes = axes_of(axis, x.ndim + count)
    lengths = iter(x.shape)
    return reshape(x, tuple(1 if a in axes else next(lengths) for a in range(x.ndim + count)))


unsqueeze = expand_dims


def flatten(x, start_axis: int = 0, end_axis: int = -1):
    """The axes from `start_axis` to `end_axis`, both included, as one.

    >>> import numpy as np
    >>> flatten(np.ones((2, 3, 4)), 1).shape
    (2, 12)
    """
    if x.ndim == 0:
        return reshape(x, (1,))
    start, end = axis_of(start_axis, x.ndim), axis_of(end_axis, x.ndim)
    if end < start:
        raise ValueError(f"flatten needs start_axis before end_axis; got {start_axis} and {end_axis}")
    return reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


@op
def _concatenate(*arrays: Array, axis=0):
    common = common_dtype(*arrays)
    return portable.concatenate([x.astype(common, copy=False) for x in arrays], axis)


@_concatenate.gradient
def _(g, arrays_shape, axis):
    ends = np.cumsum([shape[axis] for shape in arrays_shape])[:-1]
    return split(g, [int(end) for end in ends], axis)


def concatenate(arrays, axis: int = 0):
    """The arrays joined along an axis that they have.

    >>> import numpy as np
    >>> concatenate([np.zeros((2, 3)), np.ones((1, 3))]).shape
    (3, 3)
    """
    arrays = tuple(arrays)
    if not arrays:
        raise ValueError("concatenate needs at least one array")
    return _concatenate(*arrays, axis=axis)


def stack(arrays, axis: int = 0):
    """The arrays, all of one shape, joined along a new axis.

    >>> import numpy as np
    >>> stack([np.zeros(3), np.ones(3)], axis=1).tolist()
    [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    arrays = [x if hasattr(x, "shape") else np.asarray(x) for x in arrays]
    shapes = {tuple(x.shape) for x in arrays}
    if len(shapes) != 1:
        raise ValueError(f"stack needs arrays of one shape, got {sorted(shapes)}")
    return concatenate([expand_dims(x, axis) for x in arrays], axis)


@op(view=True)
def _split(x: Array, cuts, axis):
    return tuple(array_module(x).split(x, cuts, axis=axis))


@_split.gradient
def _(g, axis):
    return concatenate(g, axis) if isinstance(g, tuple) else g


def split(x, indices_or_sections, axis: int = 0):
    """The parts of x along `axis`: a number of equal ones, or cut at each of the places given. Returns a tuple.

    >>> import numpy as np
    >>> [part.tolist() for part in split(np.arange(4), 2)], [part.tolist() for part in split(np.arange(4), [1])]
    ([[0, 1], [2, 3]], [[0], [1, 2, 3]])
    """
    length = x.shape[axis_of(axis, x.ndim)]
    if hasattr(indices_or_sections, "__len__"):
        cuts = [max(int(cut) + length, 0) if cut < 0 else int(cut) for cut in indices_or_sections]
        if cuts != sorted(cuts):
            raise ValueError(f"split needs places in ascending order, got {list(indices_or_sections)}")
    else:
        count = index(indices_or_sections)
        if count < 1 or length % count:
            raise ValueError(f"split can't cut axis {axis} of length {length} into {count} equal parts")
        cuts = [length // count * i for i in range(1, count)]
    return _split(x, cuts, axis)


@op
def pad(x: Array, pad_width, constant_values=0.0):
    """x with `pad_width` elements (a number, a pair, or a pair an axis: before, after) of one value put around it.

    >>> import numpy as np
    >>> pad(np.array([1, 2]), (1, 0)).tolist()
    [0, 1, 2]
    """
    return array_module(x).pad(x, pad_width, constant_values=constant_values)


@pad.gradient
def _(g, x_shape, pad_width):
    before = np.broadcast_to(np.asarray(pad_width), (len(x_shape), 2))[:, 0]
    return g[tuple(slice(int(b), int(b) + n) for b, n in zip(before, x_shape))]


@op(view=True)
def flip(x: Array, axis=None):
    """The elements in reverse order along the axes given (None: all).

    >>> import numpy as np
    >>> flip(np.array([[1, 2], [3, 4]]), axis=1).tolist()
    [[2, 1], [4, 3]]
    """
    return array_module(x).flip(x, axis)


@flip.gradient
def _(g, axis):
    return flip(g, axis)


@op(keeps=("source",))
def to_device(x: Array, device):
    """x on `device`, "cpu" or "cuda"; its gradient comes back to where x was.

    >>> import minilm
    >>> to_device(minilm.tensor([1.0]), "cpu").device
    'cpu'
    """
    return move(x, device), device_of(x)


@to_device.gradient
def _(g, source):
    return to_device(g, source) if isinstance(g, Tensor) else move(g, source)
