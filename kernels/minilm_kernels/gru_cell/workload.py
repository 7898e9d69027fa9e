"""gru_cell as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload


class GRUCell(Workload):
    operation = "gru_cell"
    sizes = ("B", "C")
    x = "B"
    presets = {
        "default": [(64, 512), (256, 1024), (32, 256), (1, 512)],
        "rows": [(n, 512) for n in (1, 4, 16, 64, 256, 1024)],
    }
    awkward = {"B": (0, 1, 2, 3, 40), "C": (1, 2, 7, 17, 65, 500)}

    def build(self, draw, *, B, C):
        return Inputs((draw.normal(B, 3 * C, scale=2), draw.normal(B, 3 * C), draw.normal(B, C)))

    def backward(self, draw, inputs, outputs):
        (_, hiddens, h), (_, activated) = inputs.args, outputs
        return Inputs((draw.normal(*h.shape), hiddens, h, activated))

    def flops(self, mode, *, B, C):
        return B * C * {"forward": 22, "backward": 22}[mode]

    def cancelling(self, mode, inputs, exact):
        # A gate that is nearly open or shut: 1 - z is a difference, multiplied by what arrives.
        return max((np.abs(array).max(initial=0) for array in inputs.args), default=0)

    def torch(self, torch, mode, settings):
        def function(inputs, hiddens, h):
            (ir, iz, i_n), (hr, hz, hn) = inputs.chunk(3, 1), hiddens.chunk(3, 1)
            r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
            n = torch.tanh(i_n + r * hn)
            return (1 - z) * n + z * h

        return [Peer("torch composed", function, gradients=(0, 1, 2))]


WORKLOAD = GRUCell()
