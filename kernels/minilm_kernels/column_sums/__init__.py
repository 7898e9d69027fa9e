"""The sums of a matrix's columns: the gradient of a bias."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["column_sums"]


def column_sums(x, *, implementation="auto"):
    """The sum of x[i] over the rows i: what reaches a bias that was added to each of them.

    `x` (N, C) of a floating dtype; the result (C,) has the same, and of 16 bits is summed in float32 and rounded once.
    ValueError or TypeError for other shapes or dtypes.

    >>> column_sums(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([4., 6.])
    """
    checks.is_floating("x", x)
    if x.ndim != 2:
        raise ValueError(f"x has shape {x.shape}; expected (N, C): reshape it")
    return registry.call("column_sums", implementation, x)
