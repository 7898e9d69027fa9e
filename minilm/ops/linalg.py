"""Matrix products."""

from __future__ import annotations

import math

import minilm_kernels as kernels

from minilm.autograd import Array, Tensor, op
from minilm.backend import as_array
from minilm.backend import matmul as product

from .reductions import sum

__all__ = ["linear", "matmul"]


def _rows(x):
    """x with all axes but the last as one. (A length of -1 can't be told where the last is 0.)"""
    return x if x.ndim == 2 else x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


@op(precision="low")
def _matmul(a: Array, b: Array):
    if b.ndim == 2 and a.ndim > 2:  # one large product instead of many small ones
        return product(_rows(a), b).reshape(*a.shape[:-1], b.shape[-1])
    return product(a, b)


@_matmul.gradient("a")
def _(g, b):
    return matmul(g, b.swapaxes(-1, -2))


@_matmul.gradient("b")
def _(g, a, b_shape):
    if len(b_shape) == 2:
        a, g = _rows(a), _rows(g)
    return matmul(a.swapaxes(-1, -2), g)


def matmul(a, b):
    """a @ b over the last two axes, the others broadcast; a one-axis input is a row (left) or a column (right).

    >>> import numpy as np
    >>> matmul(np.ones((5, 1, 2, 3)), np.ones((4, 3, 6))).shape
    (5, 4, 2, 6)
    """
    a = a if hasattr(a, "ndim") else as_array(a)
    b = b if hasattr(b, "ndim") else as_array(b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul needs inputs with at least one axis; multiply by a number with *")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul of shapes {tuple(a.shape)} and {tuple(b.shape)}: the inner lengths differ")
    rows = a if a.ndim > 1 else a.reshape(1, -1)
    columns = b if b.ndim > 1 else b.reshape(-1, 1)
    y = _matmul(rows, columns)
    if a.ndim > 1 and b.ndim > 1:
        return y
    shape = y.shape[:-2] + (y.shape[-2:-1] if a.ndim > 1 else ()) + (y.shape[-1:] if b.ndim > 1 else ())
    return y.reshape(shape)


@op(precision="low")
def linear(x: Array, weight: Array, bias: Array = None, layout="oi"):
    """x @ weight.T + bias for a weight (out, in), layout "oi"; x @ weight + bias for a weight (in, out), layout "io".

    x (..., in), bias (out,) or None; result (..., out). "oi" is torch's layout of Linear, "io" GPT-2's of Conv1D.

    >>> import numpy as np
    >>> linear(np.ones((2, 3), np.float32), np.full((4, 3), 2.0, np.float32)).shape
    (2, 4)
    """
    if layout not in ("oi", "io"):
        raise ValueError(f"layout is 'oi' (out, in) or 'io' (in, out), not {layout!r}")
    matrix = weight.T if layout == "oi" else weight
    if matrix.ndim != 2 or x.ndim == 0 or x.shape[-1] != matrix.shape[0]:
        raise ValueError(
            f"linear of x {tuple(x.shape)} with weight {tuple(weight.shape)} in layout {layout!r} does not fit: the "
            f"weight is ({'out, in' if layout == 'oi' else 'in, out'}), and x (..., in)"
        )
    if bias is not None and bias.shape != matrix.shape[1:]:
        raise ValueError(
            f"linear's bias has shape {tuple(bias.shape)}; expected {matrix.shape[1:]}, one number an output"
        )
    y = product(_rows(x), matrix, align_rows=True)
    if bias is not None and bias.dtype == y.dtype:
        kernels.add_bias(y, bias)  # nearly always
    elif bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], matrix.shape[1])


@linear.gradient("x")
def _(g, weight, x_shape, layout):
    return _times(_rows(g), weight if layout == "oi" else weight.swapaxes(0, 1)).reshape(x_shape)


@linear.gradient("weight")
def _(g, x, layout):
    g, x = _rows(g), _rows(x)
    return _times(g.swapaxes(0, 1), x) if layout == "oi" else _times(x.swapaxes(0, 1), g)


@linear.gradient("bias")
def _(g):
    return sum_of_rows(g)


def sum_of_rows(x):
    """x (..., C) summed over all axes but the last; of an array or a Tensor."""
    rows = _rows(x)
    return sum(rows, 0) if isinstance(rows, Tensor) else kernels.column_sums(rows)


def _times(a, b):
    """a @ b: on the tape while the gradient is to be differentiated itself, else at once."""
    return matmul(a, b) if isinstance(a, Tensor) or isinstance(b, Tensor) else product(a, b)
