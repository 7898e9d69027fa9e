"""dropout as the lab runs it: its backward pass is the same call."""

from __future__ import annotations

from ..bench.workload import Inputs, Workload


class Dropout(Workload):
    operation = "dropout"
    sizes = ("N", "C")
    x = "N"
    presets = {
        "default": [(4096, 768), (4096, 3072), (256, 384)],
        "rows": [(n, 768) for n in (16, 64, 256, 1024, 4096)],
    }
    options = {"p": (0.1,)}
    awkward = {"N": (0, 1, 2, 3, 70, 200), "C": (1, 2, 7, 17, 65, 257), "p": (0.0, 0.1, 0.5, 1.0)}

    def build(self, draw, *, N, C, p):
        settings = {"p": p, "seed": int(draw.integers(0, 2**62)), "offset": int(draw.integers(0, 2**62))}
        return Inputs((draw.normal(N, C),), settings)

    def flops(self, mode, *, N, C, p):
        return N * C  # not counting the random bits, which are integers


WORKLOAD = Dropout()
