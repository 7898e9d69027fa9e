"""add_layer_norm for the CPU: layer_norm's passes over a row, which find the sum in the first cache."""

from __future__ import annotations

import numpy as np

from ..chunks import PARTS, bounds, contiguous_rows, parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register


@register("add_layer_norm", name="cpu", device="cpu", dtypes=("float32", "float64"))
def add_layer_norm(x, residual, weight, bias, *, eps, dtype=None):
    rows = contiguous_rows(x)
    weight = np.ones(x.shape[-1], x.dtype) if weight is None else np.ascontiguousarray(weight)
    bias = np.zeros(x.shape[-1], x.dtype) if bias is None else np.ascontiguousarray(bias)
    y, total = np.empty_like(rows), np.empty_like(rows)
    mean, rstd = np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    arrays = rows, contiguous_rows(residual), weight, bias, y, total, mean, rstd
    _forward_all(parts_for(rows.size), *arrays, x.dtype.type(eps))
    y, shape = y if dtype is None else y.astype(dtype), x.shape[:-1]
    return y.reshape(x.shape), total.reshape(x.shape), mean.reshape(shape), rstd.reshape(shape)


@register("add_layer_norm_backward", name="cpu", device="cpu", dtypes=("float32", "float64"))
def add_layer_norm_backward(total, g, g_total, weight, mean, rstd, *, needs):
    columns = total.shape[-1]
    weight = np.ones(columns, total.dtype) if weight is None else np.ascontiguousarray(weight)
    rows = contiguous_rows(total)
    dx = np.empty_like(rows)
    # Each part of the rows has sums of its own: added up in the end in one order, whoever made them.
    sums = np.zeros((min(PARTS, max(len(rows) // 8, 1)), 2, columns), total.dtype)
    each = (np.ascontiguousarray(array).reshape(-1) for array in (mean, rstd))
    gradients = contiguous_rows(g.astype(total.dtype, copy=False)), contiguous_rows(g_total)
    _backward_all(parts_for(rows.size), *gradients, rows, weight, *each, dx, sums)
    dweight, dbias = sums.sum(axis=0) if needs[1] or needs[2] else (None, None)
    return dx.reshape(total.shape) if needs[0] else None, dweight if needs[1] else None, dbias if needs[2] else None


@jit(inline=True)
def _forward(x, residual, weight, bias, y, total, mean, rstd, eps, start, stop):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    share = one / x.dtype.type(x.shape[1])
    for row in range(start, stop):
        xs, residuals, totals, ys = x[row], residual[row], total[row], y[row]
        whole = zero
        for i in range(xs.size):
            totals[i] = xs[i] + residuals[i]
            whole += totals[i]
        center = whole * share
        squares = zero
        for i in range(xs.size):
            squares += (totals[i] - center) * (totals[i] - center)
        scale = one / np.sqrt(squares * share + eps)
        for i in range(xs.size):
            ys[i] = (totals[i] - center) * scale * weight[i] + bias[i]
        mean[row], rstd[row] = center, scale


@jit(inline=True)
def _backward(g, g_total, total, weight, mean, rstd, dx, sums, first, last):
    zero = total.dtype.type(0)
    share = total.dtype.type(1) / total.dtype.type(total.shape[1])
    for part in range(first, last):
        start, stop = bounds(part, len(sums), len(total))
        dweight, dbias = sums[part, 0], sums[part, 1]
        for row in range(start, stop):
            gs, straight, totals, dxs = g[row], g_total[row], total[row], dx[row]
            center, scale = mean[row], rstd[row]
            whole, dot = zero, zero
            for i in range(gs.size):
                normal = (totals[i] - center) * scale
                scaled = gs[i] * weight[i]
                whole += scaled
                dot += scaled * normal
                dweight[i] += gs[i] * normal
                dbias[i] += gs[i]
            whole, dot = whole * share, dot * share
            for i in range(gs.size):
                normal = (totals[i] - center) * scale
                dxs[i] = scale * (gs[i] * weight[i] - whole - normal * dot) + straight[i]


@jit
def _forward_all(parts, x, residual, weight, bias, y, total, mean, rstd, eps):
    in_parts(_forward, parts, len(x), (x, residual, weight, bias, y, total, mean, rstd, eps))


@jit
def _backward_all(parts, g, g_total, total, weight, mean, rstd, dx, sums):
    in_parts(_backward, parts, len(sums), (g, g_total, total, weight, mean, rstd, dx, sums))
