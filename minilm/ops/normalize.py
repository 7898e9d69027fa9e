"""Softmax, and the normalisations of a layer's features."""

from __future__ import annotations

import minilm_kernels as kernels

from minilm.autograd import Array, Tensor, op
from minilm.backend import resolve_dtype

from .elementwise import astype, exp, sqrt
from .reductions import mean, sum, var

__all__ = ["add_layer_norm", "add_rms_norm", "layer_norm", "log_softmax", "rms_norm", "softmax"]


@op(precision="float32")
def softmax(x: Array, axis=-1, mask=None):
    """exp(x) / sum(exp(x)): weights along `axis` that sum to one; a row that is -inf throughout gives zeros.

    Where `mask`, booleans that broadcast to x's shape, is False the weight is 0; a row masked whole gives zeros, too.

    >>> import numpy as np
    >>> softmax(np.array([0.0, np.log(3.0), -np.inf], np.float32)).tolist()
    [0.25, 0.75, 0.0]
    """
    return kernels.softmax(x, axis=axis, mask=mask)


@softmax.gradient
def _(g, y, axis):
    if isinstance(g, Tensor):
        return y * (g - sum(g * y, axis, True))
    return kernels.softmax_backward(g, y, axis=axis)


@op(precision="float32")
def log_softmax(x: Array, axis=-1):
    """log(softmax(x)), exact where the weights are too small to be told from zero.

    >>> import numpy as np
    >>> log_softmax(np.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    return kernels.log_softmax(x, axis=axis)


@log_softmax.gradient
def _(g, y, axis):
    if isinstance(g, Tensor):
        return g - exp(y) * sum(g, axis, True)
    return kernels.log_softmax_backward(g, y, axis=axis)


@op(keeps=("mean", "rstd"), precision="float32")
def layer_norm(x: Array, weight: Array = None, bias: Array = None, eps=1e-5, dtype=None):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

    x (..., C); weight and bias (C,) or None. Of a float32 x the result may be rounded to a `dtype` of 16 bits, for
    matrix products that are fast in those.

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]], np.float32), None, None, eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    return kernels.layer_norm(x, weight, bias, **_settings(eps, dtype))


@layer_norm.gradient
def _(g, x, weight, mean, rstd, needs):
    return kernels.layer_norm_backward(g, x, weight, mean, rstd, needs=needs)


@layer_norm.composition
def _(x, weight, bias, eps, dtype):
    y = (x - mean(x, -1, True)) / sqrt(var(x, -1, True) + eps)
    y = y if weight is None else y * weight
    return _narrowed(y if bias is None else y + bias, dtype)


@op(keeps=("rstd",), precision="float32")
def rms_norm(x: Array, weight: Array = None, eps=1e-6, dtype=None):
    """x / sqrt(mean(x**2) + eps) * weight over the last axis (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

    x (..., C); weight (C,) or None; `dtype` as of `layer_norm`.

    >>> import numpy as np
    >>> rms_norm(np.array([[3.0, 3.0]], np.float32), np.array([1.0, 2.0], np.float32), eps=0.0).tolist()
    [[1.0, 2.0]]
    """
    return kernels.rms_norm(x, weight, **_settings(eps, dtype))


@rms_norm.gradient
def _(g, x, weight, rstd, needs):
    return kernels.rms_norm_backward(g, x, weight, rstd, needs=needs)


@rms_norm.composition
def _(x, weight, eps, dtype):
    y = x / sqrt(mean(x * x, -1, True) + eps)
    return _narrowed(y if weight is None else y * weight, dtype)


@op(keeps=("mean", "rstd"), precision="float32")
def add_layer_norm(x: Array, residual: Array, weight: Array = None, bias: Array = None, eps=1e-5, dtype=None):
    """layer_norm(x + residual) and x + residual, in one pass: what lies between two sublayers of a transformer.

    x and residual (..., C) of one shape; weight and bias (C,) or None. Returns (normalised, total), the first in
    `dtype` as of `layer_norm`.

    >>> import numpy as np
    >>> x = np.ones((2, 3, 4), np.float32)
    >>> y, total = add_layer_norm(x, x, None, None)
    >>> y.shape, total[0, 0].tolist()
    ((2, 3, 4), [2.0, 2.0, 2.0, 2.0])
    """
    y, total, mean, rstd = kernels.add_layer_norm(x, residual, weight, bias, **_settings(eps, dtype))
    return (y, total), mean, rstd


@add_layer_norm.gradient
def _(g, y, weight, mean, rstd, needs):
    wanted = needs[0] or needs[1], needs[2], needs[3]
    dx, dweight, dbias = kernels.add_layer_norm_backward(*g, y[1], weight, mean, rstd, needs=wanted)
    return dx, dx, dweight, dbias


@add_layer_norm.composition
def _(x, residual, weight, bias, eps, dtype):
    total = x + residual
    return layer_norm(total, weight, bias, eps, dtype), total


@op(keeps=("rstd",), precision="float32")
def add_rms_norm(x: Array, residual: Array, weight: Array = None, eps=1e-6, dtype=None):
    """rms_norm(x + residual) and x + residual, in one pass; shapes and result as `add_layer_norm`'s.

    >>> import numpy as np
    >>> y, total = add_rms_norm(np.array([[1.0, -1.0]]), np.array([[2.0, -2.0]]))
    >>> y.round(3).tolist(), total.tolist()
    ([[1.0, -1.0]], [[3.0, -3.0]])
    """
    y, total, rstd = kernels.add_rms_norm(x, residual, weight, **_settings(eps, dtype))
    return (y, total), rstd


@add_rms_norm.gradient
def _(g, y, weight, rstd, needs):
    dx, dweight = kernels.add_rms_norm_backward(*g, y[1], weight, rstd, needs=(needs[0] or needs[1], needs[2]))
    return dx, dx, dweight


@add_rms_norm.composition
def _(x, residual, weight, eps, dtype):
    total = x + residual
    return rms_norm(total, weight, eps, dtype), total


def _narrowed(y, dtype):
    return y if dtype is None else astype(y, resolve_dtype(dtype))


def _settings(eps, dtype) -> dict:
    return {"eps": eps, "dtype": None if dtype is None else resolve_dtype(dtype)}
