"""The specification of gru: products and cells, a step after the other, for any library and dtype."""

from __future__ import annotations

from ..gru_cell import gru_cell, gru_cell_backward
from ..lstm.reference import arriving_at, keep, states_after, take
from ..products import matmul_into
from ..registry import array_module, register


@register("gru", name="reference")
def gru(sums, weight, bias, h, *, alive):
    xp, hs = array_module(sums), states_after(h, len(sums))
    hiddens, activated = (xp.empty(sums.shape, sums.dtype) for _ in range(2))
    hiddens[...] = 0 if bias is None else bias
    for t in range(len(sums)):
        matmul_into(hiddens[t], hs[t].astype(weight.dtype, copy=False), weight.T, add=bias is not None)
        gru_cell(sums[t], hiddens[t], hs[t], into=(hs[t + 1], activated[t]))
        if alive is not None:
            keep(alive[t], t, hs)
    return hs, hiddens, activated


@register("gru_backward", name="reference")
def gru_backward(g, g_h, weight, hs, hiddens, activated, *, alive):
    xp, arriving = array_module(g), arriving_at(g, g_h)
    dsums, dhiddens = (xp.empty(activated.shape, g.dtype) for _ in range(2))
    direct = xp.empty(g_h.shape, g.dtype)
    for t in range(len(g))[::-1]:
        if alive is not None:
            arriving[t] += take(alive[t], arriving[t + 1])
        gru_cell_backward(arriving[t + 1], hiddens[t], hs[t], activated[t], into=(dsums[t], dhiddens[t], direct))
        arriving[t] += direct
        matmul_into(arriving[t], dhiddens[t].astype(weight.dtype, copy=False), weight, add=True)
    return dsums, dhiddens, arriving[0]
