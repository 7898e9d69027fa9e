"""rms_norm for the CPU: a row is read from memory once and stays in the first cache for the passes over it."""

from __future__ import annotations

import numpy as np

from ..chunks import PARTS, bounds, contiguous_rows, parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register


@register("rms_norm", name="cpu", device="cpu", dtypes=("float32", "float64"))
def rms_norm(x, weight, *, eps, dtype=None):
    rows = contiguous_rows(x)
    weight = np.ones(x.shape[-1], x.dtype) if weight is None else np.ascontiguousarray(weight)
    y, rstd = np.empty_like(rows), np.empty(len(rows), x.dtype)
    _forward_all(parts_for(rows.size), rows, weight, x.dtype.type(eps), y, rstd)
    y = y if dtype is None else y.astype(dtype)
    return y.reshape(x.shape), rstd.reshape(x.shape[:-1])


@register("rms_norm_backward", name="cpu", device="cpu", dtypes=("float32", "float64"))
def rms_norm_backward(x, g, weight, rstd, *, needs):
    columns = x.shape[-1]
    weight = np.ones(columns, x.dtype) if weight is None else np.ascontiguousarray(weight)
    rows = contiguous_rows(x)
    dx = np.empty_like(rows)
    # Each part of the rows has a sum of its own: added up in the end in one order, whoever made them.
    sums = np.zeros((min(PARTS, max(len(rows) // 8, 1)), columns), x.dtype)
    rstd = np.ascontiguousarray(rstd).reshape(-1)
    _backward_all(parts_for(rows.size), contiguous_rows(g.astype(x.dtype, copy=False)), rows, weight, rstd, dx, sums)
    return dx.reshape(x.shape) if needs[0] else None, sums.sum(axis=0) if needs[1] else None


@jit(inline=True)
def _forward(x, weight, eps, y, rstd, start, stop):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    share = one / x.dtype.type(x.shape[1])
    for row in range(start, stop):
        xs, ys = x[row], y[row]
        squares = zero
        for i in range(xs.size):
            squares += xs[i] * xs[i]
        scale = one / np.sqrt(squares * share + eps)
        for i in range(xs.size):
            ys[i] = xs[i] * scale * weight[i]
        rstd[row] = scale


@jit(inline=True)
def _backward(g, x, weight, rstd, dx, sums, first, last):
    zero = x.dtype.type(0)
    share = x.dtype.type(1) / x.dtype.type(x.shape[1])
    for part in range(first, last):
        start, stop = bounds(part, len(sums), len(x))
        dweight = sums[part]
        for row in range(start, stop):
            gs, xs, dxs = g[row], x[row], dx[row]
            scale = rstd[row]
            dot = zero
            for i in range(xs.size):
                normal = xs[i] * scale
                dot += gs[i] * weight[i] * normal
                dweight[i] += gs[i] * normal
            dot = dot * share
            for i in range(xs.size):
                dxs[i] = scale * (gs[i] * weight[i] - xs[i] * scale * dot)


@jit
def _forward_all(parts, x, weight, eps, y, rstd):
    in_parts(_forward, parts, len(x), (x, weight, eps, y, rstd))


@jit
def _backward_all(parts, g, x, weight, rstd, dx, sums):
    in_parts(_backward, parts, len(sums), (g, x, weight, rstd, dx, sums))
