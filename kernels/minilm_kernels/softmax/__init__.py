"""Softmax and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["softmax", "softmax_backward"]


def softmax(x, *, axis=-1, mask=None, implementation="auto"):
    """Positive weights along `axis` that sum to one, larger where x is.

    y = exp(x) / sum exp(x), computed from x - max x so that nothing overflows. `mask`, booleans that broadcast to x's
    shape, is True where an element counts and False where its weight is 0, whatever x is there: NaN, too. A row that is
    masked whole, or of nothing but -inf, gives zeros. `x` has any shape of one or more axes and any floating dtype; the
    result has the same. The backward pass is `softmax_backward` of the result, masked or not. ValueError for an axis
    that `x` doesn't have or a mask that does not broadcast, TypeError for one that is not boolean.

    >>> softmax(np.log([[1.0, 1.0, 2.0]]))
    array([[0.25, 0.25, 0.5 ]])
    >>> softmax(np.log([[1.0, 1.0, 2.0]]), mask=np.array([True, True, False]))
    array([[0.5, 0.5, 0. ]])
    """
    checks.is_floating("x", x)
    if mask is None:
        return registry.call("softmax", implementation, x, axis=checks.normal_axis(axis, x))
    _check_mask(mask, x)
    return registry.call("softmax", implementation, x, axis=checks.normal_axis(axis, x), mask=mask)


def softmax_backward(g, y, *, axis=-1, implementation="auto"):
    """The gradient of `softmax` from its result `y` and `g`, the gradient that arrives: y (g - sum g y).

    `g` and `y` have one shape and dtype, and the result has the same.

    >>> softmax_backward(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    array([ 0.25, -0.25])
    """
    checks.is_floating("y", y)
    checks.matches("g", g, y.shape, y.dtype)
    return registry.call("softmax_backward", implementation, g, y, axis=checks.normal_axis(axis, y))


def _check_mask(mask, x):
    if getattr(getattr(mask, "dtype", None), "kind", None) != "b":
        raise TypeError(
            f"mask is {getattr(mask, 'dtype', type(mask).__name__)}; expected an array of booleans, True kept"
        )
    lengths = zip(mask.shape[::-1], x.shape[::-1])
    if mask.ndim > x.ndim or any(m not in (1, n) for m, n in lengths):
        raise ValueError(f"mask has shape {mask.shape}; expected one that broadcasts to that of x, {x.shape}")
