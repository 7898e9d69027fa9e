"""layer_norm as the lab runs it."""

from __future__ import annotations

from ..bench.workload import Inputs, Peer, Workload


class LayerNorm(Workload):
    operation = "layer_norm"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 768), (4096, 1024), (256, 384), (1, 768)],
        "rows": [(n, 768) for n in (16, 64, 256, 1024, 4096, 16384)],
    }
    options = {"affine": (True,)}  # whether there are a weight and a bias
    awkward = {"N": (0, 1, 2, 3, 70, 200), "C": (1, 2, 7, 17, 65, 257), "affine": (True, False)}

    def build(self, draw, *, N, C, affine):
        x = draw.normal(N, C)
        weight, bias = (draw.normal(C), draw.normal(C)) if affine else (None, None)
        return Inputs((x, weight, bias), {"eps": 1e-5})

    def backward(self, draw, inputs, outputs):
        x, weight, _ = inputs.args
        _, mean, rstd = outputs
        return Inputs((draw.normal(*x.shape), x, weight, mean, rstd))

    def flops(self, mode, *, N, C, affine):
        return N * C * {"forward": 8, "backward": 14}[mode]

    def cancelling(self, mode, inputs, exact):
        # In rows of one all cancels, and what is left is multiplied by a large rstd.
        rstd = exact[2] if mode == "forward" else inputs.args[4]
        return rstd.max(initial=1)

    def torch(self, torch, mode, settings):
        def function(x, weight, bias):
            return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)

        return [Peer("torch", function, gradients=(0, 1, 2))]


WORKLOAD = LayerNorm()
