"""swiglu as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload


class Swiglu(Workload):
    operation = "swiglu"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 768), (2048, 2048), (256, 1024), (1, 11008)],
        "rows": [(n, 2048) for n in (1, 4, 16, 64, 256, 1024, 4096)],
    }
    awkward = {"N": (0, 1, 2, 3, 70), "C": (1, 2, 7, 17, 65, 1025)}

    def build(self, draw, *, N, C):
        return Inputs((draw.normal(N, C, scale=2), draw.normal(N, C)))

    def backward(self, draw, inputs, outputs):
        return Inputs((draw.normal(*outputs[0].shape), *inputs.args))

    def flops(self, mode, *, N, C):
        return N * C * {"forward": 5, "backward": 11}[mode]

    def cancelling(self, mode, inputs, exact):
        return max((np.abs(array).max(initial=0) for array in inputs.args), default=0)

    def torch(self, torch, mode, settings):
        def function(gate, up):
            return torch.nn.functional.silu(gate) * up

        return [Peer("torch silu * up", function, gradients=(0, 1))]


WORKLOAD = Swiglu()
