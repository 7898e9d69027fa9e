"""Sums, means, extremes and the like, along an axis, several, or all (`axis=None`)."""

from __future__ import annotations

import math

import numpy as np
from minilm_kernels import portable
from minilm_kernels.checks import is_half

from minilm.autograd import Array, Tensor, op
from minilm.backend import array_module

from .arithmetic import where
from .axes import axes_of
from .elementwise import by_kernel, exp, sqrt
from .shape import broadcast_to, flip

__all__ = ["cumsum", "logsumexp", "max", "mean", "min", "prod", "std", "sum", "var"]


def _count(shape, axis) -> int:
    """How many elements are reduced to one."""
    return math.prod(shape[a] for a in axes_of(axis, len(shape)))


def _wide(x):
    """The dtype to add up in: bfloat16, of 8 bits, would lose all that is 1/256 of the sum so far; float16 1/2048."""
    return "float32" if is_half(x.dtype) else None


def _narrow(y, x):
    """`y` in the dtype of `x`, after sums in a wider one."""
    return y.astype(x.dtype) if is_half(x.dtype) else y


def _restored(y, x_shape, axis, keepdims):
    """`y` with the reduced axes put back, with length one."""
    if keepdims:
        return y
    axes = axes_of(axis, len(x_shape))
    return y.reshape(tuple(1 if a in axes else n for a, n in enumerate(x_shape)))


@op(precision="float32")
def sum(x: Array, axis=None, keepdims=False):
    """The sum of the elements.

    >>> import numpy as np
    >>> sum(np.array([[1.0, 2.0], [3.0, 4.0]]), axis=1, keepdims=True).tolist()
    [[3.0], [7.0]]
    """
    return _narrow(x.sum(axis=axis, dtype=_wide(x), keepdims=keepdims), x)


@sum.gradient
def _(g, x_shape, axis, keepdims):
    return broadcast_to(_restored(g, x_shape, axis, keepdims), x_shape)


@op(precision="float32")
def mean(x: Array, axis=None, keepdims=False):
    """The mean of the elements.

    >>> import numpy as np
    >>> mean(np.array([[1.0, 2.0], [3.0, 4.0]]), axis=0).tolist()
    [2.0, 3.0]
    """
    return _narrow(x.mean(axis=axis, dtype=_wide(x), keepdims=keepdims), x)


@mean.gradient
def _(g, x_shape, axis, keepdims):
    return broadcast_to(_restored(g, x_shape, axis, keepdims) / (_count(x_shape, axis) or 1), x_shape)


def var(x, axis=None, keepdims=False, ddof=0):
    """The variance: the mean of the squared distance from the mean, divided by count - `ddof`.

    >>> import numpy as np
    >>> float(var(np.array([1.0, 3.0]))), float(var(np.array([1.0, 3.0]), ddof=1))
    (1.0, 2.0)
    """
    distance = x - mean(x, axis, True)
    return sum(distance * distance, axis, keepdims) / (_count(x.shape, axis) - ddof)


def std(x, axis=None, keepdims=False, ddof=0):
    """The standard deviation, the square root of `var`.

    >>> import numpy as np
    >>> std(np.array([1.0, 3.0])).item()
    1.0
    """
    y = var(x, axis, keepdims, ddof)
    zero = y == 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, y)))  # where nothing varies the slope is 0, as torch has it


@op
def max(x: Array, axis=None, keepdims=False):
    """The largest element; equal largest ones share the gradient.

    >>> import minilm
    >>> x = minilm.tensor([1.0, 5.0, 5.0], requires_grad=True)
    >>> max(x).backward()
    >>> x.grad.tolist()
    [0.0, 0.5, 0.5]
    """
    return x.max(axis=axis, keepdims=keepdims)


@op
def min(x: Array, axis=None, keepdims=False):
    """The smallest element; equal smallest ones share the gradient.

    >>> import numpy as np
    >>> min(np.array([[1.0, 5.0], [4.0, 3.0]]), axis=1).tolist()
    [1.0, 3.0]
    """
    return x.min(axis=axis, keepdims=keepdims)


def _to_the_extreme(g, x, y, axis, keepdims):
    hit = (x == _restored(y, x.shape, axis, keepdims)).astype(g.dtype)
    return hit * (_restored(g, x.shape, axis, keepdims) / hit.sum(axis=axis, keepdims=True))


max.gradient(_to_the_extreme)
min.gradient(_to_the_extreme)


@op(precision="float32")
def prod(x: Array, axis=None, keepdims=False):
    """The product of the elements.

    >>> import numpy as np
    >>> prod(np.array([2.0, 3.0, 4.0])).item()
    24.0
    """
    return _narrow(x.prod(axis=axis, dtype=_wide(x), keepdims=keepdims), x)


@prod.gradient
def _(g, x, y, axis, keepdims):
    y, g = _restored(y, x.shape, axis, keepdims), _restored(g, x.shape, axis, keepdims)
    if not isinstance(x, Tensor) and (x != 0).all():
        return g * y / x
    return g * _product_of_the_others(x, axis)


def _product_of_the_others(x, axis):
    """For each element the product of the others along `axis`: exact at zeros too, quadratic in their number."""
    axes = axes_of(axis, x.ndim)
    order = tuple(a for a in range(x.ndim) if a not in axes) + axes
    moved = x.transpose(order)
    rest, count = moved.shape[: x.ndim - len(axes)], _count(x.shape, axis)
    xp = array_module(x.data if isinstance(x, Tensor) else x)
    rows = broadcast_to(moved.reshape((*rest, 1, count)), (*rest, count, count))
    others = prod(where(xp.eye(count, dtype=bool), xp.ones((), x.dtype), rows), axis=-1)
    back = tuple(order.index(a) for a in range(x.ndim))
    return others.reshape(moved.shape).transpose(back)


@op(precision="float32")
def cumsum(x: Array, axis=None):
    """The running sum along `axis` (None: of the flattened array).

    >>> import numpy as np
    >>> cumsum(np.array([1, 2, 3])).tolist()
    [1, 3, 6]
    """
    return _narrow(array_module(x).cumsum(x, axis=axis, dtype=_wide(x)), x)


@cumsum.gradient
def _(g, x_shape, axis):
    return flip(cumsum(flip(g, axis), axis), axis).reshape(x_shape)


@op(precision="float32")
def logsumexp(x: Array, axis=None, keepdims=False):
    """log(sum(exp(x))), without overflow; -inf where all of them are -inf.

    >>> import numpy as np
    >>> float(logsumexp(np.array([1000.0, 1000.0])).round(4))
    1000.6931
    """
    xp = array_module(x)
    if x.dtype.kind in "iub":
        x = x.astype("float64")
    highest = portable.largest(x, axis, True, -xp.inf)
    highest = xp.where(xp.isfinite(highest), highest, 0).astype(x.dtype, copy=False)
    with np.errstate(divide="ignore"):  # the logarithm of a sum of nothing is -inf, and no reason to warn
        y = xp.log(_narrow(by_kernel("exp", x - highest).sum(axis=axis, dtype=_wide(x), keepdims=True), x)) + highest
    return y if keepdims else y.squeeze(axes_of(axis, x.ndim))


@logsumexp.gradient
def _(g, x, y, axis, keepdims):
    y, g = _restored(y, x.shape, axis, keepdims), _restored(g, x.shape, axis, keepdims)
    return g * exp(x - where(y == -math.inf, 0 * g, y))
