"""Softmax and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["softmax", "softmax_backward"]


def softmax(x, *, axis=-1, implementation="auto"):
    """Positive weights along `axis` that sum to one, larger where x is.

    y = exp(x) / sum exp(x), computed from x - max x so that nothing overflows. A row of nothing but -inf, one that is
    masked whole, gives zeros. `x` has any shape of one or more axes and any floating dtype; the result has the same.
    ValueError for an axis that `x` doesn't have.

    >>> softmax(np.log([[1.0, 1.0, 2.0]]))
    array([[0.25, 0.25, 0.5 ]])
    """
    checks.is_floating("x", x)
    return registry.call("softmax", implementation, x, axis=_normal(axis, x))


def softmax_backward(g, y, *, axis=-1, implementation="auto"):
    """The gradient of `softmax` from its result `y` and `g`, the gradient that arrives: y (g - sum g y).

    `g` and `y` have one shape and dtype, and the result has the same.

    >>> softmax_backward(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    array([ 0.25, -0.25])
    """
    checks.is_floating("y", y)
    checks.matches("g", g, y.shape, y.dtype)
    return registry.call("softmax_backward", implementation, g, y, axis=_normal(axis, y))


def _normal(axis, x):
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis}; an array of shape {x.shape} has axes {-x.ndim} to {x.ndim - 1}")
    return axis % x.ndim
