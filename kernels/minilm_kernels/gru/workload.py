"""gru as the lab runs it."""

from __future__ import annotations

from ..bench.workload import Inputs
from ..lstm.workload import LSTM


class GRU(LSTM):
    operation = "gru"
    gates = 3

    def rest(self, draw, B, C):
        return draw.normal(3 * C), draw.normal(B, C)

    def backward(self, draw, inputs, outputs):
        weight, (hs, hiddens, activated) = inputs.args[1], outputs
        g, g_h = draw.normal(*hs[1:].shape), draw.normal(*hs[0].shape)
        return Inputs((g, g_h, weight, hs, hiddens, activated), inputs.settings)


WORKLOAD = GRU()
