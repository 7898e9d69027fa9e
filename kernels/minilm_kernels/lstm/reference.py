"""The specification of lstm: products and cells, a step after the other, for any library and dtype."""

from __future__ import annotations

from ..lstm_cell import lstm_cell, lstm_cell_backward
from ..products import matmul_into
from ..registry import array_module, register


@register("lstm", name="reference")
def lstm(sums, weight, h, c, *, alive):
    gates, activated = sums.astype(sums.dtype, order="C"), array_module(sums).empty(sums.shape, sums.dtype)
    hs, cs = states_after(h, len(sums)), states_after(c, len(sums))
    for t in range(len(sums)):
        matmul_into(gates[t], hs[t].astype(weight.dtype, copy=False), weight.T, add=True)
        lstm_cell(gates[t], cs[t], into=(hs[t + 1], cs[t + 1], activated[t]))
        if alive is not None:
            keep(alive[t], t, hs, cs)
    return hs, cs, activated


@register("lstm_backward", name="reference")
def lstm_backward(g, g_h, g_c, weight, cs, activated, *, alive):
    dgates, arriving, dc = array_module(g).empty(activated.shape, g.dtype), arriving_at(g, g_h), g_c.astype(g.dtype)
    dc = dc if dc.flags.c_contiguous else array_module(g).ascontiguousarray(dc)
    for t in range(len(g))[::-1]:
        passing = None if alive is None else [take(alive[t], x) for x in (arriving[t + 1], dc)]
        lstm_cell_backward(arriving[t + 1], dc, activated[t], cs[t], cs[t + 1], into=(dgates[t], dc))
        if passing is not None:
            arriving[t] += passing[0]
            dc += passing[1]
        matmul_into(arriving[t], dgates[t].astype(weight.dtype, copy=False), weight, add=True)
    return dgates, arriving[0], dc


def states_after(first, steps: int):
    """Room for the state (B, C) after each step, `first` before them."""
    states = array_module(first).empty((steps + 1, *first.shape), first.dtype)
    states[0] = first
    return states


def arriving_at(g, g_last):
    """What arrives at each state (T + 1, B, C): g at all but the first, g_last at the last."""
    arriving = array_module(g).empty((len(g) + 1, *g.shape[1:]), g.dtype)
    arriving[0] = 0
    arriving[1:] = g
    arriving[-1] += g_last
    return arriving


def keep(alive, t: int, *states) -> None:
    """Undoes step t for the rows that are padding."""
    for x in states:
        x[t + 1] = array_module(x).where(alive[:, None], x[t + 1], x[t])


def take(alive, x):
    """What passes the cell by, for the rows that are padding; x (B, C) is zero there from now on."""
    xp = array_module(x)
    passing = xp.where(alive[:, None], 0, x)
    x[...] = xp.where(alive[:, None], x, 0)
    return passing
