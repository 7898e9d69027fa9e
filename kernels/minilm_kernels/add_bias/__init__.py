"""A bias added to the rows of a matrix product."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["add_bias"]


def add_bias(x, bias, *, implementation="auto"):
    """x[i] += bias for every row of x, in place: what is left of a linear layer after its matrix product.

    `x` (N, C), `bias` (C,), of one floating dtype. Returns x. ValueError or TypeError for other shapes or dtypes.

    >>> add_bias(np.zeros((2, 3)), np.array([1.0, 2.0, 3.0]))
    array([[1., 2., 3.],
           [1., 2., 3.]])
    """
    checks.is_floating("x", x)
    if x.ndim != 2:
        raise ValueError(f"x has shape {x.shape}; expected (N, C): reshape it")
    checks.matches("bias", bias, x.shape[1:], x.dtype)
    return registry.call("add_bias", implementation, x, bias)
