"""softmax as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload


class Softmax(Workload):
    operation = "softmax"
    sizes = ("N", "C")
    x = "C"
    presets = {
        "default": [(12288, 256), (12288, 1024), (256, 50257), (1, 1024)],
        "columns": [(4096, c) for c in (64, 128, 256, 512, 1024, 2048, 4096)],
    }
    options = {"axis": (-1,), "masked": (False,)}  # masked: a fifth of the scores is -inf
    awkward = {"N": (0, 1, 2, 3, 70, 200), "C": (1, 2, 7, 17, 65, 257), "axis": (-1, 0), "masked": (False, True)}

    def build(self, draw, *, N, C, axis, masked):
        x = draw.normal(N, C, scale=4)
        if masked:
            x[draw.random.random((N, C)) < 0.2] = -np.inf
            x[:1] = -np.inf  # a row masked whole
        return Inputs((x,), {"axis": axis})

    def backward(self, draw, inputs, outputs):
        (y,) = outputs
        return Inputs((draw.normal(*y.shape), y), dict(inputs.settings))

    def cancelling(self, mode, inputs, exact):
        # dx = y (g - sum of g y): all of it cancels where one weight is nearly 1.
        g, y = inputs.args if mode == "backward" else (np.zeros(1), np.zeros(1))
        return np.abs(g).max(initial=0) * y.max(initial=0)

    def flops(self, mode, *, N, C, axis, masked):
        return N * C * {"forward": 5, "backward": 4}[mode]

    def torch(self, torch, mode, settings):
        def function(x):
            return torch.softmax(x, settings["axis"])

        return [Peer("torch", function, gradients=(0,))]


WORKLOAD = Softmax()
