"""The specification of gru_cell, in plain array code."""

from __future__ import annotations

from ..into import placed
from ..lstm_cell.reference import logistic
from ..registry import array_module, register


@register("gru_cell", name="reference")
def gru_cell(inputs, hiddens, h, *, into):
    xp = array_module(h)
    (ir, iz, i_n), (hr, hz, hn) = xp.split(inputs, 3, axis=1), xp.split(hiddens, 3, axis=1)
    r, z = logistic(xp, ir + hr), logistic(xp, iz + hz)
    n = xp.tanh(i_n + r * hn)
    return placed(((1 - z) * n + z * h, xp.concatenate([r, z, n], axis=1)), into)


@register("gru_cell_backward", name="reference")
def gru_cell_backward(g, hiddens, h, activated, *, into):
    xp = array_module(h)
    hn = hiddens[:, 2 * h.shape[1] :]
    r, z, n = xp.split(activated, 3, axis=1)
    dn = g * (1 - z) * (1 - n * n)
    dz = g * (h - n) * z * (1 - z)
    dr = dn * hn * r * (1 - r)
    gradients = xp.concatenate([dr, dz, dn], axis=1), xp.concatenate([dr, dz, dn * r], axis=1), g * z
    return placed(gradients, into)
