"""rms_norm as the lab runs it."""

from __future__ import annotations

from ..bench.workload import Inputs, Peer, Workload


class RMSNorm(Workload):
    operation = "rms_norm"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 768), (4096, 1024), (256, 384), (1, 768)],
        "rows": [(n, 768) for n in (16, 64, 256, 1024, 4096, 16384)],
    }
    options = {"affine": (True,)}  # whether there is a weight
    awkward = {"N": (0, 1, 2, 3, 70, 200), "C": (1, 2, 7, 17, 65, 257), "affine": (True, False)}

    def build(self, draw, *, N, C, affine):
        return Inputs((draw.normal(N, C), draw.normal(C) if affine else None), {"eps": 1e-6})

    def backward(self, draw, inputs, outputs):
        x, weight = inputs.args
        return Inputs((draw.normal(*x.shape), x, weight, outputs[1]))

    def flops(self, mode, *, N, C, affine):
        return N * C * {"forward": 4, "backward": 10}[mode]

    def cancelling(self, mode, inputs, exact):
        return inputs.args[3].max(initial=1) if mode == "backward" else 0.0  # in rows of one all cancels

    def torch(self, torch, mode, settings):
        def function(x, weight):
            return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, 1e-6)

        return [Peer("torch", function, gradients=(0, 1))]


WORKLOAD = RMSNorm()
