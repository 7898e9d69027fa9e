"""rotary for the CPU: one pass in the order of memory, whichever of heads and positions comes first there."""

from __future__ import annotations

import numpy as np

from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..simd import LANES, fma, load, multiply, splat, store, subtract


@register("rotary", name="cpu", device="cpu", dtypes=("float32",))
def rotary(x, cos, sin, *, interleaved):
    return _turn(x, cos, sin, interleaved, 1)


@register("rotary_backward", name="cpu", device="cpu", dtypes=("float32",))
def rotary_backward(g, cos, sin, *, interleaved):
    return _turn(g, cos, sin, interleaved, -1)


def _turn(x, cos, sin, interleaved, sign):
    B, H, T, D = x.shape
    heads_inside = x.strides[2] > x.strides[1]  # (B, T, H, D) in memory
    if heads_inside:
        y = np.empty((B, T, H, D), x.dtype).swapaxes(1, 2)
    else:
        y = np.empty((B, H, T, D), x.dtype)
    if y.size == 0:
        return y
    source, *steps = _memory(x)
    target = (y.swapaxes(1, 2) if heads_inside else y).reshape(-1)
    tables = [np.ascontiguousarray(table).reshape(-1) for table in (cos, sin)]
    shape = H, T, D, cos.shape[-1], len(cos) if cos.ndim == 3 else 1
    options = shape, heads_inside, interleaved, np.float32(sign)
    _rotate_all(parts_for(y.size), source, *steps, *tables, target, *options)
    return y


def _memory(x):
    """The stretch of memory that x lies in, as a vector, and x's strides in elements; of a copy where rows are torn."""
    if (x.strides[3] != x.itemsize and x.shape[3] > 1) or any(s < 0 or s % x.itemsize for s in x.strides[:3]):
        x = np.ascontiguousarray(x)
    steps = [stride // x.itemsize for stride in x.strides[:3]]
    length = sum((n - 1) * step for n, step in zip(x.shape, steps)) + x.shape[3]
    return np.lib.stride_tricks.as_strided(x, (length,), (x.itemsize,), writeable=False), *steps


@jit(inline=True)
def _rotate(x, step_b, step_h, step_t, cos, sin, y, shape, heads_inside, interleaved, sign, start, stop):
    H, T, D, half, tables = shape
    for row in range(start, stop):
        b, rest = row // (H * T), row % (H * T)
        h, t = (rest % H, rest // H) if heads_inside else (rest // T, rest % T)
        source, target = b * step_b + h * step_h + t * step_t, row * D
        table = ((b if tables > 1 else 0) * T + t) * half
        if interleaved:
            for i in range(half):
                one, other = x[source + 2 * i], x[source + 2 * i + 1]
                c, s = cos[table + i], sin[table + i] * sign
                y[target + 2 * i], y[target + 2 * i + 1] = one * c - other * s, other * c + one * s
        else:
            whole = half // LANES * LANES
            for i in range(0, whole, LANES):
                one, other = load(x, source + i), load(x, source + half + i)
                c, s = load(cos, table + i), multiply(load(sin, table + i), splat(sign))
                store(y, target + i, subtract(multiply(one, c), multiply(other, s)))
                store(y, target + half + i, fma(other, c, multiply(one, s)))
            for i in range(whole, half):
                one, other = x[source + i], x[source + half + i]
                c, s = cos[table + i], sin[table + i] * sign
                y[target + i], y[target + half + i] = one * c - other * s, other * c + one * s
        for i in range(2 * half, D):
            y[target + i] = x[source + i]


@jit
def _rotate_all(parts, x, step_b, step_h, step_t, cos, sin, y, shape, heads_inside, interleaved, sign):
    arguments = x, step_b, step_h, step_t, cos, sin, y, shape, heads_inside, interleaved, sign
    in_parts(_rotate, parts, y.size // shape[2], arguments)
