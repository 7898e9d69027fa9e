"""Comparisons and choices: their results are booleans or places, through which no gradient flows."""

from __future__ import annotations

from minilm_kernels import ordering

from minilm.autograd import Array, op
from minilm.backend import array_module

__all__ = [
    "all", "any", "argmax", "argmin", "argsort", "bitwise_and", "bitwise_or", "bitwise_xor", "equal", "greater",
    "greater_equal", "invert", "isfinite", "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or",
    "not_equal",
]  # fmt: skip


@op
def equal(a: Array, b: Array):
    """a == b

    >>> import minilm
    >>> minilm.tensor([1.0, 2.0]) == 2
    tensor([False,  True])
    """
    return a == b


@op
def not_equal(a: Array, b: Array):
    """a != b"""
    return a != b


@op
def less(a: Array, b: Array):
    """a < b

    >>> import minilm
    >>> minilm.tensor([1.0, 2.0]) < 2
    tensor([ True, False])
    """
    return a < b


@op
def less_equal(a: Array, b: Array):
    """a <= b"""
    return a <= b


@op
def greater(a: Array, b: Array):
    """a > b"""
    return a > b


@op
def greater_equal(a: Array, b: Array):
    """a >= b"""
    return a >= b


@op
def logical_and(a: Array, b: Array):
    """Whether both are true.

    >>> import numpy as np
    >>> logical_and(np.array([True, True]), np.array([True, False])).tolist()
    [True, False]
    """
    return array_module(a, b).logical_and(a, b)


@op
def logical_or(a: Array, b: Array):
    """Whether one is true."""
    return array_module(a, b).logical_or(a, b)


@op
def logical_not(x: Array):
    """Whether it is false.

    >>> import numpy as np
    >>> logical_not(np.array([True, False])).tolist()
    [False, True]
    """
    return array_module(x).logical_not(x)


@op
def bitwise_and(a: Array, b: Array):
    """a & b: of booleans, whether both are true; of integers, bit by bit."""
    return a & b


@op
def bitwise_or(a: Array, b: Array):
    """a | b: of booleans, whether one is true; of integers, bit by bit."""
    return a | b


@op
def bitwise_xor(a: Array, b: Array):
    """a ^ b: of booleans, whether they differ; of integers, bit by bit."""
    return a ^ b


@op
def invert(x: Array):
    """~x: of booleans, the opposite; of integers, every bit's."""
    return ~x


@op
def all(x: Array, axis=None, keepdims=False):
    """Whether all elements are true.

    >>> import numpy as np
    >>> all(np.array([[True, False], [True, True]]), axis=1).tolist()
    [False, True]
    """
    return x.all(axis=axis, keepdims=keepdims)


@op
def any(x: Array, axis=None, keepdims=False):
    """Whether one element is true.

    >>> import numpy as np
    >>> any(np.array([[True, False], [False, False]]), axis=1).tolist()
    [True, False]
    """
    return x.any(axis=axis, keepdims=keepdims)


@op
def isnan(x: Array):
    """Whether it is not a number.

    >>> import numpy as np
    >>> isnan(np.array([1.0, np.nan, np.inf])).tolist()
    [False, True, False]
    """
    return array_module(x).isnan(x)


@op
def isfinite(x: Array):
    """Whether it is neither NaN nor infinite.

    >>> import numpy as np
    >>> isfinite(np.array([1.0, np.nan, np.inf])).tolist()
    [True, False, False]
    """
    return array_module(x).isfinite(x)


@op
def argmax(x: Array, axis=None, keepdims=False):
    """The place of the first largest element.

    >>> import numpy as np
    >>> argmax(np.array([[1.0, 5.0, 5.0], [3.0, 2.0, 1.0]]), axis=1).tolist()
    [1, 0]
    """
    return array_module(x).argmax(x, axis=axis, keepdims=keepdims)


@op
def argmin(x: Array, axis=None, keepdims=False):
    """The place of the first smallest element.

    >>> import numpy as np
    >>> argmin(np.array([[1.0, 5.0, 5.0], [3.0, 2.0, 1.0]]), axis=1).tolist()
    [0, 2]
    """
    return array_module(x).argmin(x, axis=axis, keepdims=keepdims)


@op
def argsort(x: Array, axis=-1):
    """The places that sort `x`; equal elements keep their order.

    >>> import numpy as np
    >>> argsort(np.array([3, 1, 2, 1])).tolist()
    [1, 3, 2, 0]
    """
    return ordering.argsort(x, axis)
