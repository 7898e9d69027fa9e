"""log_softmax for the CPU: a row stays in the first cache for its three passes: largest, sum, differences."""

from __future__ import annotations

import numpy as np

from ..checks import last_axis_only
from ..chunks import contiguous_rows, parts_for
from ..jit import AS_WRITTEN, jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import exp, largest

_ZERO = np.float32(0)


@register("log_softmax", name="cpu", device="cpu", dtypes=("float32",), limits=last_axis_only)
def log_softmax(x, *, axis):
    rows = contiguous_rows(x)
    y = np.empty_like(rows)
    _forward_all(parts_for(rows.size), rows, y)
    return y.reshape(x.shape)


@register("log_softmax_backward", name="cpu", device="cpu", dtypes=("float32",), limits=last_axis_only)
def log_softmax_backward(g, y, *, axis):
    g_rows, y_rows = contiguous_rows(g), contiguous_rows(y)
    dx = np.empty_like(y_rows)
    _backward_all(parts_for(dx.size), g_rows, y_rows, dx)
    return dx.reshape(y.shape)


@jit(inline=True, fastmath=AS_WRITTEN)  # the logarithm added to a large shift would be lost
def _lowered(x, shift, logarithm):
    return (x - shift) - logarithm


@jit(inline=True)
def _forward(x, y, start, stop):
    for row in range(start, stop):
        xs, ys = x[row], y[row]
        highest = largest(xs)
        shift = highest if np.isfinite(highest) else _ZERO
        total = _ZERO
        for i in range(xs.size):
            total += exp(xs[i] - shift)
        logarithm = np.log(total)
        for i in range(xs.size):
            ys[i] = _lowered(xs[i], shift, logarithm)


@jit(inline=True)
def _backward(g, y, dx, start, stop):
    for row in range(start, stop):
        gs, ys, dxs = g[row], y[row], dx[row]
        total = _ZERO
        for i in range(gs.size):
            total += gs[i]
        for i in range(ys.size):
            dxs[i] = gs[i] - exp(ys[i]) * total


@jit
def _forward_all(parts, x, y):
    in_parts(_forward, parts, len(x), (x, y))


@jit
def _backward_all(parts, g, y, dx):
    in_parts(_backward, parts, len(y), (g, y, dx))
