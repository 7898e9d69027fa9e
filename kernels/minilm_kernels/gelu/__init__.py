"""The Gaussian error linear unit and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["gelu", "gelu_backward"]


def gelu(x, bias=None, *, approximate="none", implementation="auto"):
    """x times the probability that a standard normal number is below x (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    "none": x Phi(x) = x (1 + erf(x / sqrt 2)) / 2;  "tanh": x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.

    `x` has any shape and floating dtype; the result has the same. With a `bias` (C,) of that dtype the result is that
    of x + bias, x (..., C), in one pass: for a matrix product that the bias was not added to. ValueError for another
    `approximate` and for shapes that do not fit.

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    _check(x, bias, approximate)
    return registry.call("gelu", implementation, x, bias, approximate=approximate)


def gelu_backward(g, x, bias=None, *, approximate="none", implementation="auto"):
    """The gradient of `gelu` at `x`, or at x + bias, times `g`, the gradient that arrives: all of one dtype.

    "none": g (Phi(x) + x phi(x)) with phi the normal density; "tanh": the derivative of that formula. `g` and the
    result are of the shape of `x`; the gradient of the bias is the result's sum over rows.

    >>> gelu_backward(np.ones(3), np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.0833,  0.5   ,  1.0833])
    """
    _check(x, bias, approximate)
    checks.matches("g", g, x.shape, x.dtype)
    return registry.call("gelu_backward", implementation, g, x, bias, approximate=approximate)


def _check(x, bias, approximate):
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate is 'none' or 'tanh', not {approximate!r}")
    checks.is_floating("x", x)
    if bias is not None:
        checks.has_columns("x", x)
        checks.matches("bias", bias, x.shape[-1:], x.dtype)
