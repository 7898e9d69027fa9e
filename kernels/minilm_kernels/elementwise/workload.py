"""The elementwise functions as the lab runs them."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload
from . import FUNCTIONS


class Elementwise(Workload):
    operation = "elementwise"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 768), (1024, 1024), (256, 1536), (1, 3072)],
        "rows": [(n, 3072) for n in (4, 16, 64, 256, 1024, 4096)],
    }
    options = {"function": tuple(FUNCTIONS)}
    awkward = {"N": (0, 1, 2, 3, 70, 200), "C": (1, 2, 7, 17, 65, 257), "function": tuple(FUNCTIONS)}

    def build(self, draw, *, N, C, function):
        x = draw.normal(N, C, scale=3)
        return Inputs((np.abs(x) + 0.01 if function == "log" else x,), {"function": function})

    def backward(self, draw, inputs, outputs):
        function = inputs.settings["function"]
        kept = outputs[0] if FUNCTIONS[function] == "y" else inputs.args[0]
        return Inputs((draw.normal(*kept.shape), kept), {"function": function})

    def cancelling(self, mode, inputs, exact):
        return np.abs(inputs.args[0]).max(initial=0) if mode == "backward" else 0.0  # 1 - y: a difference

    def flops(self, mode, *, N, C, function):
        forward = {"erf": 1, "exp": 1, "log": 1, "relu": 1, "sigmoid": 3, "silu": 4, "tanh": 1}
        backward = {"erf": 4, "exp": 1, "log": 1, "relu": 1, "sigmoid": 3, "silu": 7, "tanh": 3}
        return N * C * {"forward": forward, "backward": backward}[mode][function]

    def torch(self, torch, mode, settings):
        name = settings["function"]
        function = torch.nn.functional.silu if name == "silu" else getattr(torch, name)
        return [Peer("torch", function, gradients=(0,))]


WORKLOAD = Elementwise()
