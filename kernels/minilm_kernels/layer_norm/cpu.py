"""layer_norm for the CPU: a row is read from memory once and stays in the first cache for the passes over it."""

from __future__ import annotations

import numpy as np

from ..chunks import PARTS, bounds, contiguous_rows, parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..streaming import empty_rows, stream


@register("layer_norm", name="cpu", device="cpu", dtypes=("float32", "float64"))
def layer_norm(x, weight, bias, *, eps, dtype=None):
    rows = contiguous_rows(x)
    weight = np.ones(x.shape[-1], x.dtype) if weight is None else np.ascontiguousarray(weight)
    bias = np.zeros(x.shape[-1], x.dtype) if bias is None else np.ascontiguousarray(bias)
    y, streamed = empty_rows(rows.shape, x.dtype)
    mean, rstd = np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    _forward_all(parts_for(rows.size), rows, weight, bias, x.dtype.type(eps), y, mean, rstd, streamed)
    y = y if dtype is None else y.astype(dtype)
    return y.reshape(x.shape), mean.reshape(x.shape[:-1]), rstd.reshape(x.shape[:-1])


@register("layer_norm_backward", name="cpu", device="cpu", dtypes=("float32", "float64"))
def layer_norm_backward(x, g, weight, mean, rstd, *, needs):
    columns = x.shape[-1]
    weight = np.ones(columns, x.dtype) if weight is None else np.ascontiguousarray(weight)
    rows = contiguous_rows(x)
    dx, streamed = empty_rows(rows.shape, x.dtype)
    # Each part of the rows has sums of its own: added up in the end in one order, whoever made them.
    sums = np.zeros((min(PARTS, max(len(rows) // 8, 1)), 2, columns), x.dtype)
    arrays = contiguous_rows(g.astype(x.dtype, copy=False)), rows, weight, _flat(mean), _flat(rstd), dx, sums
    _backward_all(min(parts_for(rows.size), len(sums)), *arrays, streamed)
    dweight, dbias = sums.sum(axis=0) if needs[1] or needs[2] else (None, None)
    return dx.reshape(x.shape) if needs[0] else None, dweight if needs[1] else None, dbias if needs[2] else None


def _flat(array):
    return np.ascontiguousarray(array).reshape(-1)


@jit(inline=True)
def _forward(x, weight, bias, eps, y, mean, rstd, streamed, start, stop):
    piece = np.empty(x.shape[1] if streamed else 0, x.dtype)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    share = one / x.dtype.type(x.shape[1])
    for row in range(start, stop):
        xs, ys = x[row], piece if streamed else y[row]
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
        if streamed:
            stream(piece, y[row])
        mean[row], rstd[row] = center, scale


@jit(inline=True)
def _backward(g, x, weight, mean, rstd, dx, sums, streamed, first, last):
    piece = np.empty(x.shape[1] if streamed else 0, x.dtype)
    zero = x.dtype.type(0)
    share = x.dtype.type(1) / x.dtype.type(x.shape[1])
    for part in range(first, last):
        start, stop = bounds(part, len(sums), len(x))
        dweight, dbias = sums[part, 0], sums[part, 1]
        for row in range(start, stop):
            gs, xs, dxs = g[row], x[row], piece if streamed else dx[row]
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
            if streamed:
                stream(piece, dx[row])


@jit
def _forward_all(parts, x, weight, bias, eps, y, mean, rstd, streamed):
    in_parts(_forward, parts, len(x), (x, weight, bias, eps, y, mean, rstd, streamed))


@jit
def _backward_all(parts, g, x, weight, mean, rstd, dx, sums, streamed):
    in_parts(_backward, parts, len(sums), (g, x, weight, mean, rstd, dx, sums, streamed))
