"""lamb as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Workload

_LARGEST = 2**22  # elements of one parameter


class Lamb(Workload):
    operation = "lamb"
    sizes = ("P",)  # parameters in all
    x = "P"
    presets = {
        "default": [(10_000_000,), (1_000_000,), (10_000,)],
        "parameters": [(n,) for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)],
    }
    options = {"adapt": (True,), "max_weight_norm": (None,)}
    awkward = {"P": (1, 2, 7, 65, 1000, 70_001), "adapt": (True, False), "max_weight_norm": (None, 1.0)}
    layouts = ("contiguous",)  # others are refused
    in_place = True

    def build(self, draw, *, P, adapt, max_weight_norm):
        settings = {"lr": 1e-3, "weight_decay": 0.1, "step": 3, "adapt": adapt, "max_weight_norm": max_weight_norm}
        params, grads, exp_avgs = ([draw.normal(n) for n in _parts(P)] for _ in range(3))
        exp_avg_sqs = [np.abs(draw.normal(n)) for n in _parts(P)]
        return Inputs((params, grads, exp_avgs, exp_avg_sqs), settings)

    def flops(self, mode, *, P, adapt, max_weight_norm):
        return (19 if adapt else 15) * P

    def results(self, returned, args):
        params, _, exp_avgs, exp_avg_sqs = args
        return (*params, *exp_avgs, *exp_avg_sqs)

    def bytes_moved(self, mode, inputs, results):
        return 9 * sum(param.nbytes for param in inputs.args[0])  # the means are read again once the norms are known


def _parts(P: int) -> list[int]:
    """Sizes that come to P, as unequal as those of a model: a vector for each matrix."""
    sizes = []
    while P:
        sizes.append(min(P, _LARGEST, max(1, P // 3)))
        P -= sizes[-1]
    return sizes


WORKLOAD = Lamb()
