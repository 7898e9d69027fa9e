"""log_softmax as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload


class LogSoftmax(Workload):
    operation = "log_softmax"
    sizes = ("N", "C")
    x = "C"
    presets = {
        "default": [(12288, 256), (12288, 1024), (256, 50257), (1, 1024)],
        "columns": [(4096, c) for c in (64, 128, 256, 512, 1024, 2048, 4096)],
    }
    options = {"axis": (-1,)}
    awkward = {"N": (0, 1, 2, 3, 70, 200), "C": (1, 2, 7, 17, 65, 257), "axis": (-1, 0)}

    def build(self, draw, *, N, C, axis):
        return Inputs((draw.normal(N, C, scale=4),), {"axis": axis})

    def backward(self, draw, inputs, outputs):
        (y,) = outputs
        return Inputs((draw.normal(*y.shape), y), dict(inputs.settings))

    def cancelling(self, mode, inputs, exact):
        # y = x - log of the sum, dx = g - e^y times the sum of g: differences.
        if mode == "forward":
            return np.abs(inputs.args[0]).max(initial=0)
        return np.abs(inputs.args[0]).sum(axis=inputs.settings["axis"]).max(initial=0)

    def flops(self, mode, *, N, C, axis):
        return N * C * {"forward": 5, "backward": 4}[mode]

    def torch(self, torch, mode, settings):
        def function(x):
            return torch.log_softmax(x, settings["axis"])

        return [Peer("torch", function, gradients=(0,))]


WORKLOAD = LogSoftmax()
