"""add_rms_norm as the lab runs it."""

from __future__ import annotations

from ..bench.workload import Inputs, Peer, Workload


class AddRmsNorm(Workload):
    operation = "add_rms_norm"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 768), (2048, 384), (768, 128), (1, 768)],
        "rows": [(n, 768) for n in (16, 64, 256, 1024, 4096, 16384)],
    }
    options = {"affine": (True,)}  # whether there are a weight
    awkward = {"N": (0, 1, 2, 3, 70, 200), "C": (1, 2, 7, 17, 65, 257), "affine": (True, False)}

    def build(self, draw, *, N, C, affine):
        weight = draw.normal(C) if affine else None
        return Inputs((draw.normal(N, C), draw.normal(N, C), weight), {"eps": 1e-6})

    def backward(self, draw, inputs, outputs):
        y, total, rstd = outputs
        return Inputs((draw.normal(*y.shape), draw.normal(*y.shape), total, inputs.args[2], rstd))

    def flops(self, mode, *, N, C, affine):
        return N * C * {"forward": 6, "backward": 11}[mode]

    def cancelling(self, mode, inputs, exact):
        # In rows of one all cancels, and what is left is multiplied by a large rstd.
        rstd = exact[2] if mode == "forward" else inputs.args[4]
        return 4 * rstd.max(initial=1)

    def torch(self, torch, mode, settings):
        def function(x, residual, weight):
            total = x + residual
            return torch.nn.functional.rms_norm(total, x.shape[-1:], weight, 1e-6), total

        return [Peer("torch add, rms_norm", function, gradients=(0, 2))]  # the residual has the gradient of x


WORKLOAD = AddRmsNorm()
