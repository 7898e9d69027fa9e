"""lstm_cell as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload


class LSTMCell(Workload):
    operation = "lstm_cell"
    sizes = ("B", "C")
    x = "B"
    presets = {
        "default": [(64, 512), (256, 1024), (32, 256), (1, 512)],
        "rows": [(n, 512) for n in (1, 4, 16, 64, 256, 1024)],
    }
    awkward = {"B": (0, 1, 2, 3, 40), "C": (1, 2, 7, 17, 65, 500)}

    def build(self, draw, *, B, C):
        return Inputs((draw.normal(B, 4 * C, scale=2), draw.normal(B, C)))

    def backward(self, draw, inputs, outputs):
        (_, c), (_, c_next, activated) = inputs.args, outputs
        return Inputs((draw.normal(*c.shape), draw.normal(*c.shape), activated, c, c_next))

    def flops(self, mode, *, B, C):
        return B * C * {"forward": 24, "backward": 32}[mode]

    def cancelling(self, mode, inputs, exact):
        # A gate that is nearly open or shut: 1 - i is a difference, multiplied by what arrives.
        return max((np.abs(array).max(initial=0) for array in inputs.args), default=0)

    def torch(self, torch, mode, settings):
        def function(gates, c):
            i, f, g, o = gates.chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c

        return [Peer("torch composed", function, gradients=(0, 1))]


WORKLOAD = LSTMCell()
