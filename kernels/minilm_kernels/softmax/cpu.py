"""Softmax for the CPU: a row stays in the first cache for its three passes: largest, sum, weights."""

from __future__ import annotations

import numpy as np

from ..checks import last_axis_only
from ..chunks import contiguous_rows, parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import exp, largest

_ZERO, _ONE, _MINUS_INF = np.float32(0), np.float32(1), np.float32(-np.inf)


@register("softmax", name="cpu", device="cpu", dtypes=("float32",), limits=last_axis_only)
def softmax(x, *, axis, mask=None):
    rows = contiguous_rows(x)
    y = np.empty_like(rows)
    if mask is None:
        _forward_all(parts_for(rows.size), rows, y)
    else:
        _masked_all(parts_for(rows.size), rows, *_mask_rows(mask, x.shape), y)
    return y.reshape(x.shape)


def _mask_rows(mask, shape):
    """The mask's own rows, (M, C), and for each row of x the number of its one: a mask is not spread out over heads."""
    columns = shape[-1]
    if mask.ndim == 0 or mask.shape[-1] != columns:
        mask = np.broadcast_to(mask, (*mask.shape[:-1], columns))
    rows = contiguous_rows(mask)
    numbers = np.arange(len(rows)).reshape(mask.shape[:-1])
    return rows, np.ascontiguousarray(np.broadcast_to(numbers, shape[:-1])).reshape(-1)


@register("softmax_backward", name="cpu", device="cpu", dtypes=("float32",), limits=last_axis_only)
def softmax_backward(g, y, *, axis):
    g_rows, y_rows = contiguous_rows(g), contiguous_rows(y)
    dx = np.empty_like(y_rows)
    _backward_all(parts_for(dx.size), g_rows, y_rows, dx)
    return dx.reshape(y.shape)


@jit(inline=True)
def _forward(x, y, start, stop):
    for row in range(start, stop):
        xs, ys = x[row], y[row]
        highest = largest(xs)
        shift = highest if np.isfinite(highest) else _ZERO
        total = _ZERO
        for i in range(xs.size):
            ys[i] = exp(xs[i] - shift)
            total += ys[i]
        scale = _ONE / (_ONE if highest == _MINUS_INF else total)
        for i in range(xs.size):
            ys[i] *= scale


@jit(inline=True)
def _masked(x, mask, mask_row, y, start, stop):
    for row in range(start, stop):
        xs, kept, ys = x[row], mask[mask_row[row]], y[row]
        for i in range(xs.size):
            ys[i] = xs[i] if kept[i] else _MINUS_INF
        highest = largest(ys)
        shift = highest if np.isfinite(highest) else _ZERO
        total = _ZERO
        for i in range(xs.size):
            ys[i] = exp(ys[i] - shift)
            total += ys[i]
        scale = _ONE / (_ONE if highest == _MINUS_INF else total)
        for i in range(xs.size):
            ys[i] *= scale


@jit
def _masked_all(parts, x, mask, mask_row, y):
    in_parts(_masked, parts, len(x), (x, mask, mask_row, y))


@jit(inline=True)
def _backward(g, y, dx, start, stop):
    for row in range(start, stop):
        gs, ys, dxs = g[row], y[row], dx[row]
        dot = _ZERO
        for i in range(ys.size):
            dot += gs[i] * ys[i]
        for i in range(ys.size):
            dxs[i] = ys[i] * (gs[i] - dot)


@jit
def _forward_all(parts, x, y):
    in_parts(_forward, parts, len(x), (x, y))


@jit
def _backward_all(parts, g, y, dx):
    in_parts(_backward, parts, len(y), (g, y, dx))
