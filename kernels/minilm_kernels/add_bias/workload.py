"""add_bias as the lab runs it."""

from __future__ import annotations

from ..bench.workload import Inputs, Peer, Workload


class AddBias(Workload):
    operation = "add_bias"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 768), (2048, 1536), (768, 512), (768, 128)],
        "rows": [(n, 768) for n in (64, 256, 1024, 4096)],
    }
    awkward = {"N": (0, 1, 2, 70, 300), "C": (1, 3, 17, 300)}
    layouts = ("contiguous", "transposed", "strided", "reversed")
    in_place = True

    def build(self, draw, *, N, C):
        return Inputs((draw.normal(N, C), draw.normal(C)))

    def flops(self, mode, *, N, C):
        return N * C

    def results(self, returned, args):
        return (args[0],)

    def torch(self, torch, mode, settings):
        return [Peer("torch add_", lambda x, bias: x.add_(bias))]


WORKLOAD = AddBias()
