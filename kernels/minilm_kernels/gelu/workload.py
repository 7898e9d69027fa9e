"""gelu as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload


class GELU(Workload):
    operation = "gelu"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 768), (4096, 3072), (256, 1536), (1, 3072)],
        "rows": [(n, 3072) for n in (4, 16, 64, 256, 1024, 4096)],
    }
    options = {"approximate": ("none", "tanh"), "bias": (False, True)}
    awkward = {
        "N": (0, 1, 2, 3, 70, 200),
        "C": (1, 2, 7, 17, 65, 257),
        "approximate": ("none", "tanh"),
        "bias": (False, True),
    }

    def build(self, draw, *, N, C, approximate, bias):
        offset = draw.normal(C) if bias else None
        return Inputs((draw.normal(N, C, scale=3), offset), {"approximate": approximate})

    def backward(self, draw, inputs, outputs):
        x, bias = inputs.args
        return Inputs((draw.normal(*x.shape), x, bias), dict(inputs.settings))

    def cancelling(self, mode, inputs, exact):
        largest = np.abs(inputs.args[0]).max(initial=0)
        if mode == "backward":  # the slope is a difference, and zero at -0.75
            return largest
        return largest * 2.0**-29  # the reference's 1 + erf is one in float64, and zero below -8.3, where gelu is not

    def flops(self, mode, *, N, C, approximate, bias):
        per_element = {
            ("forward", "none"): 5,
            ("backward", "none"): 11,
            ("forward", "tanh"): 9,
            ("backward", "tanh"): 17,
        }
        return N * C * (per_element[mode, approximate] + bias)

    def torch(self, torch, mode, settings):
        def function(x, bias):
            return torch.nn.functional.gelu(x if bias is None else x + bias, approximate=settings["approximate"])

        return [Peer("torch", function, gradients=(0,))]


WORKLOAD = GELU()
