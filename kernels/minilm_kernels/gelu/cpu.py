"""gelu for the CPU: one vectorised pass; the backward pass computes what it needs of the forward again, from x."""

from __future__ import annotations

import math

import numpy as np

from ..chunks import PARTS, SERIAL_BELOW, bounds
from ..jit import jit, prange
from ..registry import register
from ..vector_math import exp, logistic, normal_tail

_ZERO, _ONE = np.float32(0), np.float32(1)
_INV_SQRT_2_PI = np.float32(1 / math.sqrt(2 * math.pi))
# (1 + tanh u) / 2 is logistic(2u), which loses no digits where tanh u is near -1: 2u = x (_A + _B x^2).
_A = np.float32(2 * math.sqrt(2 / math.pi))
_B = np.float32(2 * math.sqrt(2 / math.pi) * 0.044715)
_3B = np.float32(6 * math.sqrt(2 / math.pi) * 0.044715)


@register("gelu", name="cpu", device="cpu", dtypes=("float32",))
def gelu(x, *, approximate):
    x = np.asarray(x, order="C")
    y = np.empty_like(x)
    tanh = approximate == "tanh"
    if x.size < SERIAL_BELOW:
        _forward(x.reshape(-1), y.reshape(-1), tanh, 0, x.size)
    else:
        _forward_all(x.reshape(-1), y.reshape(-1), tanh)
    return y


@register("gelu_backward", name="cpu", device="cpu", dtypes=("float32",))
def gelu_backward(g, x, *, approximate):
    g, x = np.asarray(g, order="C"), np.asarray(x, order="C")
    dx = np.empty_like(x)
    tanh = approximate == "tanh"
    if x.size < SERIAL_BELOW:
        _backward(g.reshape(-1), x.reshape(-1), dx.reshape(-1), tanh, 0, x.size)
    else:
        _backward_all(g.reshape(-1), x.reshape(-1), dx.reshape(-1), tanh)
    return dx


@jit
def _forward(x, y, tanh, start, stop):
    x, y = x[start:stop], y[start:stop]
    if tanh:
        for i in range(x.size):
            y[i] = x[i] * logistic(x[i] * (_A + _B * x[i] * x[i]))
    else:
        for i in range(x.size):
            tail, _ = normal_tail(abs(x[i]))
            y[i] = x[i] * (tail if x[i] < _ZERO else _ONE - tail)


@jit
def _backward(g, x, dx, tanh, start, stop):
    g, x, dx = g[start:stop], x[start:stop], dx[start:stop]
    if tanh:
        for i in range(x.size):
            square = x[i] * x[i]
            u = x[i] * (_A + _B * square)
            small = exp(-abs(u))  # both logistic(u) and its derivative from what can't overflow
            large = _ONE / (_ONE + small)
            share = small * large if u < _ZERO else large
            dx[i] = g[i] * (share + x[i] * (small * large * large) * (_A + _3B * square))
    else:
        for i in range(x.size):
            tail, density = normal_tail(abs(x[i]))
            share = tail if x[i] < _ZERO else _ONE - tail
            dx[i] = g[i] * (share + x[i] * density * _INV_SQRT_2_PI)


@jit(parallel=True)
def _forward_all(x, y, tanh):
    for part in prange(PARTS):
        start, stop = bounds(part, PARTS, x.size)
        _forward(x, y, tanh, start, stop)


@jit(parallel=True)
def _backward_all(g, x, dx, tanh):
    for part in prange(PARTS):
        start, stop = bounds(part, PARTS, x.size)
        _backward(g, x, dx, tanh, start, stop)
