"""lstm as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Workload


class LSTM(Workload):
    operation = "lstm"
    sizes = ("T", "B", "C")
    x = "T"
    presets = {
        "default": [(128, 16, 220), (64, 64, 512), (128, 1, 512)],
        "rows": [(64, n, 512) for n in (1, 4, 16, 64, 256)],
    }
    options = {"masked": (False,)}
    awkward = {"T": (0, 1, 8, 9, 13), "B": (0, 1, 6, 7, 16, 50), "C": (1, 5, 16, 33), "masked": (False, True)}
    gates = 4

    def build(self, draw, *, T, B, C, masked):
        arrays = draw.normal(T, B, self.gates * C), draw.normal(self.gates * C, C, scale=C**-0.5)
        alive = draw.integers(0, 2, T, B).astype(bool) if masked else None
        return Inputs((*arrays, *self.rest(draw, B, C)), {"alive": alive})

    def rest(self, draw, B, C):
        return draw.normal(B, C), draw.normal(B, C)

    def backward(self, draw, inputs, outputs):
        weight, (hs, cs, activated) = inputs.args[1], outputs
        g, g_h, g_c = draw.normal(*hs[1:].shape), draw.normal(*hs[0].shape), draw.normal(*hs[0].shape)
        return Inputs((g, g_h, g_c, weight, cs, activated), inputs.settings)

    def flops(self, mode, *, T, B, C, masked):
        return T * B * C * (2 * self.gates * C + {"forward": 24, "backward": 32}[mode])

    def cancelling(self, mode, inputs, exact):
        # Terms of a product, and gates that are nearly open or shut; a step's rounding goes through all that follow.
        arrays = [array for array in (*inputs.args, *exact) if array is not None]
        return 4 * max((np.abs(array).max(initial=0) for array in arrays), default=0)


WORKLOAD = LSTM()
