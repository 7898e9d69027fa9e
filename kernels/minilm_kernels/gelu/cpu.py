"""gelu for the CPU: one vectorised pass; the backward pass computes what it needs of the forward again, from x."""

from __future__ import annotations

import math

import numpy as np

from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import FAR, normal_tail
from .tanh_lanes import lanes_backward, lanes_forward

_ZERO, _ONE = np.float32(0), np.float32(1)
_INV_SQRT_2_PI = np.float32(1 / math.sqrt(2 * math.pi))


@register("gelu", name="cpu", device="cpu", dtypes=("float32",))
def gelu(x, bias, *, approximate):
    x, bias = np.asarray(x, order="C"), _contiguous(bias)
    y = np.empty_like(x)
    _forward_all(parts_for(x.size), x.reshape(-1), bias, y.reshape(-1), approximate == "tanh")
    return y


@register("gelu_backward", name="cpu", device="cpu", dtypes=("float32",))
def gelu_backward(g, x, bias, *, approximate):
    g, x, bias = np.asarray(g, order="C"), np.asarray(x, order="C"), _contiguous(bias)
    dx = np.empty_like(x)
    _backward_all(parts_for(x.size), g.reshape(-1), x.reshape(-1), bias, dx.reshape(-1), approximate == "tanh")
    return dx


_NONE = np.zeros(4096, np.float32)  # adding it costs less than 2 %, and a second kind of kernel its compile time


def _contiguous(bias):
    return _NONE if bias is None else np.ascontiguousarray(bias)


# A part is a range of elements; each turn takes those that one row of the bias goes with.


@jit(inline=True)
def _forward(x, bias, y, tanh, start, stop):
    while start < stop:
        column = start % bias.size
        end, along = min(stop, start - column + bias.size), bias[column:]
        if tanh:
            lanes_forward(x[start:end], along, y[start:end])
        else:
            _erf_forward(x[start:end], along, y[start:end])
        start = end


@jit(inline=True)
def _backward(g, x, bias, dx, tanh, start, stop):
    while start < stop:
        column = start % bias.size
        end, along = min(stop, start - column + bias.size), bias[column:]
        if tanh:
            lanes_backward(g[start:end], x[start:end], along, dx[start:end])
        else:
            _erf_backward(g[start:end], x[start:end], along, dx[start:end])
        start = end


@jit(inline=True)
def _erf_forward(x, bias, y):
    for i in range(x.size):
        at = x[i] + bias[i]
        size = abs(at)
        size = FAR if size > FAR else size
        tail, _ = normal_tail(size)
        y[i] = (_ZERO if at < _ZERO else at) - size * tail  # x Phi(x), whichever its sign


@jit(inline=True)
def _erf_backward(g, x, bias, dx):
    for i in range(x.size):
        at = x[i] + bias[i]
        size = abs(at)
        size = FAR if size > FAR else size
        tail, density = normal_tail(size)
        slope = tail - size * density * _INV_SQRT_2_PI  # at -|x|; at |x| it is 1 less that
        dx[i] = g[i] * (slope if at < _ZERO else _ONE - slope)


@jit
def _forward_all(parts, x, bias, y, tanh):
    in_parts(_forward, parts, x.size, (x, bias, y, tanh))


@jit
def _backward_all(parts, g, x, bias, dx, tanh):
    in_parts(_backward, parts, x.size, (g, x, bias, dx, tanh))
