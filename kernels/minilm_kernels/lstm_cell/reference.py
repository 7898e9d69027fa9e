"""The specification of lstm_cell, in plain array code."""

from __future__ import annotations

from ..into import placed
from ..registry import array_module, register


@register("lstm_cell", name="reference")
def lstm_cell(gates, c, *, into):
    xp = array_module(gates)
    i, f, g, o = xp.split(gates, 4, axis=1)
    i, f, g, o = logistic(xp, i), logistic(xp, f), xp.tanh(g), logistic(xp, o)
    c_next = f * c + i * g
    return placed((o * xp.tanh(c_next), c_next, xp.concatenate([i, f, g, o], axis=1)), into)


@register("lstm_cell_backward", name="reference")
def lstm_cell_backward(g_h, g_c, activated, c, c_next, *, into):
    xp = array_module(c)
    i, f, g, o = xp.split(activated, 4, axis=1)
    t = xp.tanh(c_next)
    dc = g_c + g_h * o * (1 - t * t)
    sums = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), g_h * t * o * (1 - o)]
    return placed((xp.concatenate(sums, axis=1), dc * f), into)


def logistic(xp, x):
    return 0.5 * (1 + xp.tanh(0.5 * x))
