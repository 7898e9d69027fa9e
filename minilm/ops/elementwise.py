"""Functions of one number, element by element."""

from __future__ import annotations

import minilm_kernels as kernels

from minilm.autograd import Array, Tensor, op
from minilm.backend import array_module, resolve_dtype

__all__ = ["abs", "astype", "cos", "erf", "exp", "log", "log1p", "sign", "sin", "sqrt", "square", "tanh"]


def by_kernel(function: str, x):
    """The function of that name (`minilm_kernels.elementwise`) of an array; of integers in NumPy's float64."""
    return kernels.elementwise(x if x.dtype.kind in "fV" else x.astype("float64"), function=function)


@op
def abs(x: Array):
    """|x|, with slope 0 at 0."""
    return array_module(x).abs(x)


@abs.gradient
def _(g, x):
    return g * sign(x)


@op
def sign(x: Array):
    """-1, 0 or 1; its gradient is zero."""
    return array_module(x).sign(x)


@sign.gradient
def _(g):
    return g * 0


@op
def square(x: Array):
    """x * x"""
    return x * x


@square.gradient
def _(g, x):
    return 2 * g * x


@op
def sqrt(x: Array):
    """The square root."""
    return array_module(x).sqrt(x)


@sqrt.gradient
def _(g, y):
    return g / (2 * y)


@op(precision="float32")
def exp(x: Array):
    """e ** x"""
    return by_kernel("exp", x)


@exp.gradient
def _(g, y):
    return g * y if isinstance(g, Tensor) else kernels.elementwise_backward(g, y, function="exp")


@op(precision="float32")
def log(x: Array):
    """The natural logarithm."""
    return by_kernel("log", x)


@log.gradient
def _(g, x):
    return g / x if isinstance(g, Tensor) else kernels.elementwise_backward(g, x, function="log")


@op(precision="float32")
def log1p(x: Array):
    """log(1 + x), exact for small x.

    >>> import numpy as np
    >>> log1p(np.array([0.0, 1e-20])).tolist()
    [0.0, 1e-20]
    """
    return array_module(x).log1p(x)


@log1p.gradient
def _(g, x):
    return g / (1 + x)


@op
def sin(x: Array):
    """The sine of x radians."""
    return array_module(x).sin(x)


@sin.gradient
def _(g, x):
    return g * cos(x)


@op
def cos(x: Array):
    """The cosine of x radians."""
    return array_module(x).cos(x)


@cos.gradient
def _(g, x):
    return -g * sin(x)


@op
def tanh(x: Array):
    """The hyperbolic tangent.

    >>> import numpy as np
    >>> tanh(np.array([0.0, 1.0, 100.0])).round(4).tolist()
    [0.0, 0.7616, 1.0]
    """
    return by_kernel("tanh", x)


@tanh.gradient
def _(g, y):
    return g * (1 - y * y) if isinstance(g, Tensor) else kernels.elementwise_backward(g, y, function="tanh")


@op
def erf(x: Array):
    """The error function, 2/sqrt(pi) times the integral of exp(-t**2) from 0 to x."""
    return by_kernel("erf", x)


@erf.gradient
def _(g, x):
    if isinstance(g, Tensor):
        return g * exp(-x * x) * 1.1283791670955126  # 2 / sqrt(pi)
    return kernels.elementwise_backward(g, x, function="erf")


@op
def astype(x: Array, dtype):
    """x in another dtype, "bfloat16" too; the gradient comes back in x's own. TypeError for what is no dtype.

    >>> import minilm
    >>> x = minilm.tensor([1.5], requires_grad=True)
    >>> y = astype(x, "float64")
    >>> y.backward()
    >>> y.dtype.name, x.grad.dtype.name
    ('float64', 'float32')
    """
    return x.astype(resolve_dtype(dtype))


@astype.gradient
def _(g):
    return g
