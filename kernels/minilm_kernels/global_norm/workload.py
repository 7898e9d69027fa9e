"""global_norm as the lab runs it."""

from __future__ import annotations

from ..adamw.workload import _parts
from ..bench.workload import Inputs, Peer, Workload


class GlobalNorm(Workload):
    operation = "global_norm"
    sizes = ("P",)  # elements in all
    x = "P"
    presets = {
        "default": [(10_000_000,), (1_000_000,), (10_000,)],
        "parameters": [(n,) for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)],
        "large": [(100_000_000,)],
    }
    awkward = {"P": (1, 2, 7, 65, 1000, 70_001)}

    def build(self, draw, *, P):
        return Inputs(([draw.normal(n) for n in _parts(P)],))

    def flops(self, mode, *, P):
        return 2 * P

    def torch(self, torch, mode, settings):
        def function(arrays):  # as torch.nn.utils.get_total_norm does it
            return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(arrays))).item()

        return [Peer("torch _foreach_norm", function)]


WORKLOAD = GlobalNorm()
