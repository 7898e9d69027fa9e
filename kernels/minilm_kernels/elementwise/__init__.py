"""Functions of one number, element by element, and their gradients: what networks are bent with."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["FUNCTIONS", "elementwise", "elementwise_backward"]

# The names of the functions, each with what its gradient is computed from: the input or the result.
FUNCTIONS = {"erf": "x", "exp": "y", "log": "x", "relu": "y", "sigmoid": "y", "silu": "x", "tanh": "y"}


def elementwise(x, *, function, implementation="auto"):
    """f(x) for the `function` named, in one pass.

    exp, log, tanh;  erf: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x;  relu: max(x, 0);
    sigmoid: 1 / (1 + exp(-x));  silu: x sigmoid(x) (Ramachandran et al. 2017, arXiv:1710.05941).

    The logarithm of 0 is -inf, that of a negative number NaN.

    `x` has any shape and floating dtype; the result has the same. ValueError for another function.

    >>> elementwise(np.array([-1.0, 0.0, 1.0]), function="silu").round(4)
    array([-0.2689,  0.    ,  0.7311])
    """
    _check("x", x, function)
    return registry.call("elementwise", implementation, x, function=function)


def elementwise_backward(g, kept, *, function, implementation="auto"):
    """g f'(x): the gradient of `elementwise` from `g`, the one that arrives.

    `kept` is what FUNCTIONS says: the result y, or the input x. `g` has its shape and dtype, and so has the result.

    >>> y = elementwise(np.array([-1.0, 0.0, 1.0]), function="sigmoid")
    >>> elementwise_backward(np.ones(3), y, function="sigmoid").round(4)
    array([0.1966, 0.25  , 0.1966])
    """
    _check("kept", kept, function)
    checks.matches("g", g, kept.shape, kept.dtype)
    return registry.call("elementwise_backward", implementation, g, kept, function=function)


def _check(name, array, function):
    if function not in FUNCTIONS:
        raise ValueError(f"function is one of {', '.join(FUNCTIONS)}, not {function!r}")
    checks.is_floating(name, array)
