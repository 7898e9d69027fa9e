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
def gelu(x, *, approximate):
    x = np.asarray(x, order="C")
    y = np.empty_like(x)
    tanh = approximate == "tanh"
    _forward_all(parts_for(x.size), x.reshape(-1), y.reshape(-1), tanh)
    return y


@register("gelu_backward", name="cpu", device="cpu", dtypes=("float32",))
def gelu_backward(g, x, *, approximate):
    g, x = np.asarray(g, order="C"), np.asarray(x, order="C")
    dx = np.empty_like(x)
    tanh = approximate == "tanh"
    _backward_all(parts_for(x.size), g.reshape(-1), x.reshape(-1), dx.reshape(-1), tanh)
    return dx


@jit(inline=True)
def _forward(x, y, tanh, start, stop):
    x, y = x[start:stop], y[start:stop]
    if tanh:
        lanes_forward(x, y)
    else:
        for i in range(x.size):
            size = abs(x[i])
            size = FAR if size > FAR else size
            tail, _ = normal_tail(size)
            y[i] = (_ZERO if x[i] < _ZERO else x[i]) - size * tail  # x Phi(x), whichever its sign


@jit(inline=True)
def _backward(g, x, dx, tanh, start, stop):
    g, x, dx = g[start:stop], x[start:stop], dx[start:stop]
    if tanh:
        lanes_backward(g, x, dx)
    else:
        for i in range(x.size):
            size = abs(x[i])
            size = FAR if size > FAR else size
            tail, density = normal_tail(size)
            slope = tail - size * density * _INV_SQRT_2_PI  # at -|x|; at |x| it is 1 less that
            dx[i] = g[i] * (slope if x[i] < _ZERO else _ONE - slope)


@jit
def _forward_all(parts, x, y, tanh):
    in_parts(_forward, parts, x.size, (x, y, tanh))


@jit
def _backward_all(parts, g, x, dx, tanh):
    in_parts(_backward, parts, x.size, (g, x, dx, tanh))
