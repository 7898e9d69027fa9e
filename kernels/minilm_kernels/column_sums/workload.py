"""column_sums as the lab runs it."""

from __future__ import annotations

from ..bench.workload import Inputs, Peer, Workload


class ColumnSums(Workload):
    operation = "column_sums"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 3072), (4096, 768), (768, 512), (768, 128)],
        "rows": [(n, 768) for n in (64, 256, 1024, 4096)],
    }
    awkward = {"N": (0, 1, 2, 70, 300), "C": (0, 1, 3, 17, 300)}
    layouts = ("contiguous", "transposed", "strided", "reversed")

    def build(self, draw, *, N, C):
        return Inputs((draw.normal(N, C),))

    def flops(self, mode, *, N, C):
        return N * C

    def cancelling(self, mode, inputs, exact):
        return abs(inputs.args[0]).sum(axis=0, dtype="float64").max(initial=0)

    def torch(self, torch, mode, settings):
        return [Peer("torch sum", lambda x: x.sum(0))]


WORKLOAD = ColumnSums()
