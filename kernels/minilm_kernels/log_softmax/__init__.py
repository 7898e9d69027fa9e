"""The logarithm of softmax and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["log_softmax", "log_softmax_backward"]


def log_softmax(x, *, axis=-1, implementation="auto"):
    """log(softmax(x)) along `axis`, exact where the weights are too small to be told from zero.

    y = x - max x - log sum exp(x - max x). `x` has any shape of one or more axes and any floating dtype; the result has
    the same. A row of nothing but -inf has no weights and gives NaN. ValueError for an axis that `x` doesn't have.

    >>> log_softmax(np.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    checks.is_floating("x", x)
    return registry.call("log_softmax", implementation, x, axis=checks.normal_axis(axis, x))


def log_softmax_backward(g, y, *, axis=-1, implementation="auto"):
    """The gradient of `log_softmax` from its result `y` and `g`, the gradient that arrives: g - exp(y) sum g.

    `g` and `y` have one shape and dtype, and the result has the same.

    >>> log_softmax_backward(np.array([1.0, 0.0]), np.log([0.5, 0.5])).tolist()
    [0.5, -0.5]
    """
    checks.is_floating("y", y)
    checks.matches("g", g, y.shape, y.dtype)
    return registry.call("log_softmax_backward", implementation, g, y, axis=checks.normal_axis(axis, y))
