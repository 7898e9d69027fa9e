"""gru_cell for the CPU: a row at a time, in loops that write one array each, which LLVM can vectorise."""

from __future__ import annotations

import numpy as np

from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import logistic, tanh

_ONE = np.float32(1)


@register("gru_cell", name="cpu", device="cpu", dtypes=("float32",))
def gru_cell(inputs, hiddens, h, *, into):
    inputs, hiddens, h = (np.ascontiguousarray(array) for array in (inputs, hiddens, h))
    after, activated = into or (np.empty_like(h), np.empty_like(inputs))
    _forward_all(parts_for(inputs.size), inputs, hiddens, h, after, activated)
    return after, activated


@register("gru_cell_backward", name="cpu", device="cpu", dtypes=("float32",))
def gru_cell_backward(g, hiddens, h, activated, *, into):
    given = [np.ascontiguousarray(array) for array in (g, hiddens, h, activated)]
    dinputs, dhiddens, dh = into or (np.empty_like(given[1]), np.empty_like(given[1]), np.empty_like(given[2]))
    _backward_all(parts_for(dinputs.size), *given, dinputs, dhiddens, dh)
    return dinputs, dhiddens, dh


@jit(inline=True)
def _forward(inputs, hiddens, h, after, activated, start, stop):
    size = h.shape[1]
    for row in range(start, stop):
        a, b, out = inputs[row], hiddens[row], activated[row]
        for k in range(2 * size):
            out[k] = logistic(a[k] + b[k])
        r, z, n = out[:size], out[size : 2 * size], out[2 * size :]
        a_n, b_n, before, next_ = a[2 * size :], b[2 * size :], h[row], after[row]
        for k in range(size):
            n[k] = tanh(a_n[k] + r[k] * b_n[k])
        for k in range(size):
            next_[k] = n[k] + z[k] * (before[k] - n[k])


@jit(inline=True)
def _backward(g, hiddens, h, activated, dinputs, dhiddens, dh, start, stop):
    size = h.shape[1]
    for row in range(start, stop):
        out, gs, before, b_n = activated[row], g[row], h[row], hiddens[row, 2 * size :]
        r, z, n = out[:size], out[size : 2 * size], out[2 * size :]
        into, onto, earlier = dinputs[row], dhiddens[row], dh[row]
        dr, dz, dn, bent = into[:size], into[size : 2 * size], into[2 * size :], onto[2 * size :]
        for k in range(size):
            dn[k] = gs[k] * (_ONE - z[k]) * (_ONE - n[k] * n[k])
        for k in range(size):
            dz[k] = gs[k] * (before[k] - n[k]) * z[k] * (_ONE - z[k])
        for k in range(size):
            dr[k] = dn[k] * b_n[k] * r[k] * (_ONE - r[k])
        for k in range(2 * size):
            onto[k] = into[k]
        for k in range(size):
            bent[k] = dn[k] * r[k]
        for k in range(size):
            earlier[k] = gs[k] * z[k]


@jit
def _forward_all(parts, inputs, hiddens, h, after, activated):
    in_parts(_forward, parts, len(h), (inputs, hiddens, h, after, activated))


@jit
def _backward_all(parts, g, hiddens, h, activated, dinputs, dhiddens, dh):
    in_parts(_backward, parts, len(h), (g, hiddens, h, activated, dinputs, dhiddens, dh))
