"""add_rms_norm for the CPU: rms_norm's passes over a row, which find the sum in the first cache."""

from __future__ import annotations

import numpy as np

from ..chunks import PARTS, bounds, contiguous_rows, parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register


@register("add_rms_norm", name="cpu", device="cpu", dtypes=("float32", "float64"))
def add_rms_norm(x, residual, weight, *, eps, dtype=None):
    rows = contiguous_rows(x)
    weight = np.ones(x.shape[-1], x.dtype) if weight is None else np.ascontiguousarray(weight)
    y, total, rstd = np.empty_like(rows), np.empty_like(rows), np.empty(len(rows), x.dtype)
    arrays = rows, contiguous_rows(residual), weight, y, total, rstd
    _forward_all(parts_for(rows.size), *arrays, x.dtype.type(eps))
    y = y if dtype is None else y.astype(dtype)
    return y.reshape(x.shape), total.reshape(x.shape), rstd.reshape(x.shape[:-1])


@register("add_rms_norm_backward", name="cpu", device="cpu", dtypes=("float32", "float64"))
def add_rms_norm_backward(total, g, g_total, weight, rstd, *, needs):
    columns = total.shape[-1]
    weight = np.ones(columns, total.dtype) if weight is None else np.ascontiguousarray(weight)
    rows, rstd = contiguous_rows(total), np.ascontiguousarray(rstd).reshape(-1)
    dx = np.empty_like(rows)
    # Each part of the rows has a sum of its own: added up in the end in one order, whoever made them.
    sums = np.zeros((min(PARTS, max(len(rows) // 8, 1)), columns), total.dtype)
    gradients = contiguous_rows(g.astype(total.dtype, copy=False)), contiguous_rows(g_total)
    _backward_all(parts_for(rows.size), *gradients, rows, weight, rstd, dx, sums)
    return dx.reshape(total.shape) if needs[0] else None, sums.sum(axis=0) if needs[1] else None


@jit(inline=True)
def _forward(x, residual, weight, y, total, rstd, eps, start, stop):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    share = one / x.dtype.type(x.shape[1])
    for row in range(start, stop):
        xs, residuals, totals, ys = x[row], residual[row], total[row], y[row]
        squares = zero
        for i in range(xs.size):
            totals[i] = xs[i] + residuals[i]
            squares += totals[i] * totals[i]
        scale = one / np.sqrt(squares * share + eps)
        for i in range(xs.size):
            ys[i] = totals[i] * scale * weight[i]
        rstd[row] = scale


@jit(inline=True)
def _backward(g, g_total, total, weight, rstd, dx, sums, first, last):
    zero = total.dtype.type(0)
    share = total.dtype.type(1) / total.dtype.type(total.shape[1])
    for part in range(first, last):
        start, stop = bounds(part, len(sums), len(total))
        dweight = sums[part]
        for row in range(start, stop):
            gs, straight, totals, dxs = g[row], g_total[row], total[row], dx[row]
            scale = rstd[row]
            dot = zero
            for i in range(gs.size):
                normal = totals[i] * scale
                dot += gs[i] * weight[i] * normal
                dweight[i] += gs[i] * normal
            dot = dot * share
            for i in range(gs.size):
                dxs[i] = scale * (gs[i] * weight[i] - totals[i] * scale * dot) + straight[i]


@jit
def _forward_all(parts, x, residual, weight, y, total, rstd, eps):
    in_parts(_forward, parts, len(x), (x, residual, weight, y, total, rstd, eps))


@jit
def _backward_all(parts, g, g_total, total, weight, rstd, dx, sums):
    in_parts(_backward, parts, len(sums), (g, g_total, total, weight, rstd, dx, sums))
