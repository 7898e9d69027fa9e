"""quantize as the lab runs it."""

from __future__ import annotations

from ..bench.workload import Inputs, Workload


class Quantize(Workload):
    operation = "quantize"
    sizes = ("N", "K")
    x = "N"
    presets = {"default": [(4096, 4096), (256, 576)], "rows": [(n, 768) for n in (16, 256, 4096, 50257)]}
    options = {"format": ("Q8_0", "Q4_0", "Q4_1")}
    awkward = {"N": (0, 1, 2, 70), "K": (0, 32, 64, 800), "format": ("Q8_0", "Q4_0", "Q4_1")}
    multiple_of = {"K": 32}

    def build(self, draw, *, N, K, format):
        return Inputs((draw.normal(N, K),), {"format": format})

    def flops(self, mode, *, N, K, format):
        return 4 * N * K


WORKLOAD = Quantize()
