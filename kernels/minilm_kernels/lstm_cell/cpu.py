"""lstm_cell for the CPU: a row at a time, in loops that write one array each, which LLVM can vectorise."""

from __future__ import annotations

import numpy as np

from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import logistic, tanh

_ONE = np.float32(1)


@register("lstm_cell", name="cpu", device="cpu", dtypes=("float32",))
def lstm_cell(gates, c, *, into):
    gates, c = np.ascontiguousarray(gates), np.ascontiguousarray(c)
    h, c_next, activated = into or (np.empty_like(c), np.empty_like(c), np.empty_like(gates))
    _forward_all(parts_for(gates.size), gates, c, h, c_next, activated)
    return h, c_next, activated


@register("lstm_cell_backward", name="cpu", device="cpu", dtypes=("float32",))
def lstm_cell_backward(g_h, g_c, activated, c, c_next, *, into):
    given = [np.ascontiguousarray(array) for array in (g_h, g_c, activated, c, c_next)]
    dgates, dc = into or (np.empty_like(given[2]), np.empty_like(given[3]))
    _backward_all(parts_for(dgates.size), *given, dgates, dc)
    return dgates, dc


@jit(inline=True)
def _forward(gates, c, h, c_next, activated, start, stop):
    size = c.shape[1]
    for row in range(start, stop):
        sums, out = gates[row], activated[row]
        for k in range(2 * size):
            out[k] = logistic(sums[k])
        for k in range(2 * size, 3 * size):
            out[k] = tanh(sums[k])
        for k in range(3 * size, 4 * size):
            out[k] = logistic(sums[k])
        i, f, g, o = out[:size], out[size : 2 * size], out[2 * size : 3 * size], out[3 * size :]
        before, after, hidden = c[row], c_next[row], h[row]
        for k in range(size):
            after[k] = f[k] * before[k] + i[k] * g[k]
        for k in range(size):
            hidden[k] = o[k] * tanh(after[k])


@jit(inline=True)
def _backward(g_h, g_c, activated, c, c_next, dgates, dc, start, stop):
    size = c.shape[1]
    through, bent = np.empty(size, c.dtype), np.empty(size, c.dtype)
    for row in range(start, stop):
        out, into = activated[row], dgates[row]
        i, f, g, o = out[:size], out[size : 2 * size], out[2 * size : 3 * size], out[3 * size :]
        di, df, dg, do = into[:size], into[size : 2 * size], into[2 * size : 3 * size], into[3 * size :]
        before, after, gh, gc, earlier = c[row], c_next[row], g_h[row], g_c[row], dc[row]
        for k in range(size):
            bent[k] = tanh(after[k])
        for k in range(size):
            through[k] = gc[k] + gh[k] * o[k] * (_ONE - bent[k] * bent[k])
        for k in range(size):
            di[k] = through[k] * g[k] * i[k] * (_ONE - i[k])
        for k in range(size):
            df[k] = through[k] * before[k] * f[k] * (_ONE - f[k])
        for k in range(size):
            dg[k] = through[k] * i[k] * (_ONE - g[k] * g[k])
        for k in range(size):
            do[k] = gh[k] * bent[k] * o[k] * (_ONE - o[k])
        for k in range(size):
            earlier[k] = through[k] * f[k]


@jit
def _forward_all(parts, gates, c, h, c_next, activated):
    in_parts(_forward, parts, len(c), (gates, c, h, c_next, activated))


@jit
def _backward_all(parts, g_h, g_c, activated, c, c_next, dgates, dc):
    in_parts(_backward, parts, len(c), (g_h, g_c, activated, c, c_next, dgates, dc))
