"""The Gaussian error linear unit and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["gelu", "gelu_backward"]


def gelu(x, *, approximate="none", implementation="auto"):
    """x times the probability that a standard normal number is below x (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    "none": x Phi(x) = x (1 + erf(x / sqrt 2)) / 2;  "tanh": x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.

    `x` has any shape and floating dtype; the result has the same. ValueError for another `approximate`.

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    _check(x, approximate)
    return registry.call("gelu", implementation, x, approximate=approximate)


def gelu_backward(g, x, *, approximate="none", implementation="auto"):
    """The gradient of `gelu` at `x` times `g`, the gradient that arrives: all of one shape and dtype.

    "none": g (Phi(x) + x phi(x)) with phi the normal density; "tanh": the derivative of that formula.

    >>> gelu_backward(np.ones(3), np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.0833,  0.5   ,  1.0833])
    """
    _check(x, approximate)
    checks.matches("g", g, x.shape, x.dtype)
    return registry.call("gelu_backward", implementation, g, x, approximate=approximate)


def _check(x, approximate):
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate is 'none' or 'tanh', not {approximate!r}")
    checks.is_floating("x", x)
