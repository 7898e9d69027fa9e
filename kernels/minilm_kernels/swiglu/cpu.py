"""swiglu for the CPU: one vectorised pass; the backward pass computes the logistic function again."""

from __future__ import annotations

import numpy as np

from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import logistic

_ONE = np.float32(1)
_BLOCK = 1024  # elements: what a block reads and writes fits the first cache


@register("swiglu", name="cpu", device="cpu", dtypes=("float32",))
def swiglu(gate, up):
    gate, up = np.asarray(gate, order="C"), np.asarray(up, order="C")
    y = np.empty_like(gate)
    _forward_all(parts_for(y.size), gate.reshape(-1), up.reshape(-1), y.reshape(-1))
    return y


@register("swiglu_backward", name="cpu", device="cpu", dtypes=("float32",))
def swiglu_backward(g, gate, up):
    g, gate, up = (np.asarray(array, order="C") for array in (g, gate, up))
    dgate, dup = np.empty_like(gate), np.empty_like(gate)
    _backward_all(parts_for(g.size), *(array.reshape(-1) for array in (g, gate, up, dgate, dup)))
    return dgate, dup


@jit(inline=True)
def _forward(gate, up, y, start, stop):
    gate, up, y = gate[start:stop], up[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = gate[i] * logistic(gate[i]) * up[i]


@jit(inline=True)
def _backward(g, gate, up, dgate, dup, start, stop):
    # A loop that writes two arrays that may overlap three others becomes no vectors: a block is walked three times.
    shares = np.empty(_BLOCK, g.dtype)
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        gs, gates, ups, dgates, dups = (
            g[first:last],
            gate[first:last],
            up[first:last],
            dgate[first:last],
            dup[first:last],
        )
        for i in range(gs.size):
            shares[i] = logistic(gates[i])
        for i in range(gs.size):
            dups[i] = gs[i] * gates[i] * shares[i]
        for i in range(gs.size):
            dgates[i] = gs[i] * ups[i] * shares[i] * (_ONE + gates[i] * (_ONE - shares[i]))


@jit
def _forward_all(parts, gate, up, y):
    in_parts(_forward, parts, y.size, (gate, up, y))


@jit
def _backward_all(parts, g, gate, up, dgate, dup):
    in_parts(_backward, parts, g.size, (g, gate, up, dgate, dup))
