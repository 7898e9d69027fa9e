"""Softmax for the CPU: a row stays in the first cache for its three passes: largest, sum, weights."""

from __future__ import annotations

import numpy as np

from ..chunks import PARTS, SERIAL_BELOW, bounds, contiguous_rows
from ..jit import jit, prange
from ..registry import register
from ..vector_math import exp, order_key, order_value

_ZERO, _ONE, _MINUS_INF = np.float32(0), np.float32(1), np.float32(-np.inf)
_LOWEST_KEY = np.int32(-(2**31))


def _last_axis_only(*arrays, axis):
    last = arrays[0].ndim - 1
    return None if axis == last else f"it works along the last axis, {last}, not {axis}: use numpy.moveaxis"


@register("softmax", name="cpu", device="cpu", dtypes=("float32",), limits=_last_axis_only)
def softmax(x, *, axis):
    rows = contiguous_rows(x)
    y = np.empty_like(rows)
    if rows.size < SERIAL_BELOW:
        _forward(rows, y, 0, len(rows))
    else:
        _forward_all(rows, y)
    return y.reshape(x.shape)


@register("softmax_backward", name="cpu", device="cpu", dtypes=("float32",), limits=_last_axis_only)
def softmax_backward(g, y, *, axis):
    g_rows, y_rows = contiguous_rows(g), contiguous_rows(y)
    dx = np.empty_like(y_rows)
    if dx.size < SERIAL_BELOW:
        _backward(g_rows, y_rows, dx, 0, len(dx))
    else:
        _backward_all(g_rows, y_rows, dx)
    return dx.reshape(y.shape)


@jit
def _forward(x, y, start, stop):
    for row in range(start, stop):
        xs, ys = x[row], y[row]
        key = _LOWEST_KEY
        for i in range(xs.size):
            key = max(key, order_key(xs[i]))
        largest = order_value(key)
        shift = largest if np.isfinite(largest) else _ZERO
        total = _ZERO
        for i in range(xs.size):
            ys[i] = exp(xs[i] - shift)
            total += ys[i]
        scale = _ONE / (_ONE if largest == _MINUS_INF else total)
        for i in range(xs.size):
            ys[i] *= scale


@jit
def _backward(g, y, dx, start, stop):
    for row in range(start, stop):
        gs, ys, dxs = g[row], y[row], dx[row]
        dot = _ZERO
        for i in range(ys.size):
            dot += gs[i] * ys[i]
        for i in range(ys.size):
            dxs[i] = ys[i] * (gs[i] - dot)


@jit(parallel=True)
def _forward_all(x, y):
    for part in prange(PARTS):
        start, stop = bounds(part, PARTS, len(x))
        _forward(x, y, start, stop)


@jit(parallel=True)
def _backward_all(g, y, dx):
    for part in prange(PARTS):
        start, stop = bounds(part, PARTS, len(y))
        _backward(g, y, dx, start, stop)
