"""Arithmetic, extremes and choices, element by element; two inputs broadcast as in NumPy."""

from __future__ import annotations

import math

import numpy as np
from minilm_kernels import portable

from minilm.autograd import Array, op
from minilm.backend import array_module, as_array

from .elementwise import log

__all__ = [
    "add", "clip", "divide", "maximum", "minimum", "multiply", "negative", "power", "subtract", "where"
]  # fmt: skip


_FLOAT64 = np.dtype(np.float64)


def _settled(y, a, b):
    """`y` in the floats' dtype, where NumPy made float64 of floats beside integers (a count, say)."""
    if y.dtype is not _FLOAT64:
        return y
    floats = [x.dtype for x in (a, b) if hasattr(x, "dtype") and x.dtype.kind not in "iub"]
    return y.astype(floats[0], copy=False) if len(floats) == 1 else y


@op
def add(a: Array, b: Array):
    """a + b"""
    return _settled(a + b, a, b)


@add.gradient("a")
def _(g):
    return g


@add.gradient("b")
def _(g):
    return g


@op
def subtract(a: Array, b: Array):
    """a - b"""
    return _settled(a - b, a, b)


@subtract.gradient("a")
def _(g):
    return g


@subtract.gradient("b")
def _(g):
    return -g


@op
def multiply(a: Array, b: Array):
    """a * b"""
    return _settled(a * b, a, b)


@multiply.gradient("a")
def _(g, b):
    return g * b


@multiply.gradient("b")
def _(g, a):
    return g * a


@op
def divide(a: Array, b: Array):
    """a / b"""
    return _settled(a / b, a, b)


@divide.gradient("a")
def _(g, b):
    return g / b


@divide.gradient("b")
def _(g, y, b):
    return -g * y / b


@op
def negative(x: Array):
    """-x"""
    return -x


@negative.gradient
def _(g):
    return -g


@op(precision="float32")
def power(a: Array, b: Array):
    """a ** b

    >>> import minilm
    >>> x = minilm.tensor([2.0, 3.0], requires_grad=True)
    >>> (x**3).sum().backward()
    >>> x.grad.tolist()
    [12.0, 27.0]
    """
    if isinstance(b, int) and b == 3 and isinstance(a, np.ndarray):  # NumPy's own takes a logarithm for it
        return a * a * a
    return _settled(a**b, a, b)


@power.gradient("a")
def _(g, a, b):
    if isinstance(b, (int, float, np.generic)):
        return g * b * a ** (b - 1) if b != 0 else g * 0
    zero = b == 0  # the derivative of a**0 is 0 everywhere, also at a = 0, where a**-1 is not
    return g * where(zero, 0 * b, b * a ** where(zero, b + 1, b - 1))


@power.gradient("b")
def _(g, y, a):
    if isinstance(a, (int, float, np.generic)):
        return g * y * (math.log(a) if a > 0 else 0.0)
    return g * y * log(where(a > 0, a, a * 0 + 1))  # at a = 0 the limit is 0


@op
def maximum(a: Array, b: Array):
    """The larger of a and b; where they are equal each gets half of the gradient.

    >>> import minilm
    >>> x = minilm.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> maximum(x, 2).sum().backward()
    >>> x.grad.tolist()
    [0.0, 0.5, 1.0]
    """
    return _settled(array_module(a, b).maximum(a, b), a, b)


@maximum.gradient("a")
def _(g, a, b):
    return g * _share(a > b, a == b, g.dtype)


@maximum.gradient("b")
def _(g, a, b):
    return g * _share(b > a, a == b, g.dtype)


@op
def minimum(a: Array, b: Array):
    """The smaller of a and b; where they are equal each gets half of the gradient.

    >>> import numpy as np
    >>> minimum(np.array([1.0, 3.0]), 2.0).tolist()
    [1.0, 2.0]
    """
    return _settled(array_module(a, b).minimum(a, b), a, b)


@minimum.gradient("a")
def _(g, a, b):
    return g * _share(a < b, a == b, g.dtype)


@minimum.gradient("b")
def _(g, a, b):
    return g * _share(b < a, a == b, g.dtype)


def _share(chosen, tied, dtype):
    return chosen.astype(dtype) + tied.astype(dtype) * 0.5


@op
def clip(x: Array, min=None, max=None):
    """x, but at least `min` and at most `max` (numbers or arrays; None: no bound); where cut no gradient flows.

    >>> import numpy as np
    >>> clip(np.array([-2.0, 0.5]), 0, None).tolist()
    [0.0, 0.5]
    """
    y = portable.clip(x, min, max)
    return y if x.dtype.kind in "iub" else y.astype(x.dtype, copy=False)


@clip.gradient
def _(g, x, min, max):
    inside = True
    if min is not None:
        inside = inside & (x >= min)
    if max is not None:
        inside = inside & (x <= max)
    return g * inside


@op
def where(condition: Array, a: Array, b: Array):
    """a where `condition` (booleans) holds, else b; a and b are arrays or numbers.

    >>> import numpy as np
    >>> where(np.array([True, False]), np.array([1.0, 2.0]), 0.0).tolist()
    [1.0, 0.0]
    """
    if not (hasattr(a, "dtype") or hasattr(b, "dtype")):
        a, b = as_array(a)[()], as_array(b)[()]  # NumPy's numbers, which any device takes
    return _settled(portable.where(condition, a, b), a, b)


@where.gradient("a")
def _(g, condition):
    return where(condition, g, 0)


@where.gradient("b")
def _(g, condition):
    return where(condition, 0, g)
