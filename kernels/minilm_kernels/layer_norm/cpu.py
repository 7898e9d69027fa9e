"""layer_norm for the CPU: a row is read from memory once and stays in the first cache for the passes over it."""

from __future__ import annotations

import numpy as np

from ..chunks import PARTS, SERIAL_BELOW, bounds, contiguous_rows
from ..jit import jit, prange
from ..registry import register


@register("layer_norm", name="cpu", device="cpu", dtypes=("float32", "float64"))
def layer_norm(x, weight, bias, *, eps):
    rows = contiguous_rows(x)
    weight = np.ones(x.shape[-1], x.dtype) if weight is None else np.ascontiguousarray(weight)
    bias = np.zeros(x.shape[-1], x.dtype) if bias is None else np.ascontiguousarray(bias)
    y, mean, rstd = np.empty_like(rows), np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    if rows.size < SERIAL_BELOW:
        _forward(rows, weight, bias, x.dtype.type(eps), y, mean, rstd, 0, len(rows))
    else:
        _forward_all(rows, weight, bias, x.dtype.type(eps), y, mean, rstd)
    return y.reshape(x.shape), mean.reshape(x.shape[:-1]), rstd.reshape(x.shape[:-1])


@register("layer_norm_backward", name="cpu", device="cpu", dtypes=("float32", "float64"))
def layer_norm_backward(g, x, weight, mean, rstd, *, needs):
    columns = x.shape[-1]
    weight = np.ones(columns, x.dtype) if weight is None else np.ascontiguousarray(weight)
    rows = contiguous_rows(x)
    dx = np.empty_like(rows)
    # Each part of the rows has sums of its own: added up in the end in one order, whoever made them.
    sums = np.zeros((min(PARTS, max(len(rows) // 8, 1)), 2, columns), x.dtype)
    arrays = contiguous_rows(g), rows, weight, _flat(mean), _flat(rstd), dx, sums
    if rows.size < SERIAL_BELOW:
        _backward(*arrays, 0, len(sums))
    else:
        _backward_all(*arrays)
    dweight, dbias = sums.sum(axis=0) if needs[1] or needs[2] else (None, None)
    return dx.reshape(x.shape) if needs[0] else None, dweight if needs[1] else None, dbias if needs[2] else None


def _flat(array):
    return np.ascontiguousarray(array).reshape(-1)


@jit
def _forward(x, weight, bias, eps, y, mean, rstd, start, stop):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    share = one / x.dtype.type(x.shape[1])
    for row in range(start, stop):
        xs, ys = x[row], y[row]
        total = zero
        for i in range(xs.size):
            total += xs[i]
        center = total * share
        squares = zero
        for i in range(xs.size):
            squares += (xs[i] - center) * (xs[i] - center)
        scale = one / np.sqrt(squares * share + eps)
        for i in range(xs.size):
            ys[i] = (xs[i] - center) * scale * weight[i] + bias[i]
        mean[row], rstd[row] = center, scale


@jit
def _backward(g, x, weight, mean, rstd, dx, sums, first, last):
    zero = x.dtype.type(0)
    share = x.dtype.type(1) / x.dtype.type(x.shape[1])
    for part in range(first, last):
        start, stop = bounds(part, len(sums), len(x))
        dweight, dbias = sums[part, 0], sums[part, 1]
        for row in range(start, stop):
            gs, xs, dxs = g[row], x[row], dx[row]
            center, scale = mean[row], rstd[row]
            total, dot = zero, zero
            for i in range(xs.size):
                normal = (xs[i] - center) * scale
                scaled = gs[i] * weight[i]
                total += scaled
                dot += scaled * normal
                dweight[i] += gs[i] * normal
                dbias[i] += gs[i]
            total, dot = total * share, dot * share
            for i in range(xs.size):
                normal = (xs[i] - center) * scale
                dxs[i] = scale * (gs[i] * weight[i] - total - normal * dot)


@jit(parallel=True)
def _forward_all(x, weight, bias, eps, y, mean, rstd):
    for part in prange(PARTS):
        start, stop = bounds(part, PARTS, len(x))
        _forward(x, weight, bias, eps, y, mean, rstd, start, stop)


@jit(parallel=True)
def _backward_all(g, x, weight, mean, rstd, dx, sums):
    for part in prange(len(sums)):
        _backward(g, x, weight, mean, rstd, dx, sums, np.int64(part), np.int64(part) + 1)
