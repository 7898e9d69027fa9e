"""linear_cross_entropy as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload
from ..cross_entropy.workload import widened


class LinearCrossEntropy(Workload):
    operation = "linear_cross_entropy"
    sizes = ("N", "C", "V")
    x = "N"
    presets = {
        "default": [(256, 768, 50257), (1024, 384, 8192)],
        "rows": [(n, 768, 50257) for n in (1, 16, 64, 256)],
    }
    options = {"label_smoothing": (0.0,), "chunk": (None,)}
    awkward = {
        "N": (0, 1, 2, 70),
        "C": (1, 7, 33),
        "V": (1, 2, 65, 257),
        "label_smoothing": (0.0, 0.1),
        "chunk": (None, 1, 32),
    }

    float32_results = {"forward": (0, 1)}

    def build(self, draw, *, N, C, V, label_smoothing, chunk):
        args = draw.normal(N, C), draw.normal(V, C, scale=C**-0.5), draw.integers(0, V, N)
        return Inputs(args, {"label_smoothing": label_smoothing, "chunk": chunk})

    def backward(self, draw, inputs, outputs):
        return Inputs((draw.normal(len(inputs.args[0])).astype(outputs[1].dtype), *inputs.args), dict(inputs.settings))

    def flops(self, mode, *, N, C, V, label_smoothing, chunk):
        products = {"forward": 1, "backward": 3}[mode]  # the logits again, and two gradients
        return N * V * (2 * C * products + 5)

    def cancelling(self, mode, inputs, exact):
        x, weight = inputs.args[-3:-1]
        g = inputs.args[0] if mode == "backward" else np.ones(1)
        sizes = [np.abs(array).max(initial=0) for array in (x, weight, g)]
        return 4 * max(sizes[0] * sizes[1] * x.shape[1], sizes[0], sizes[1]) * max(sizes[2], 1)

    def torch(self, torch, mode, settings):
        def function(x, weight, targets):
            smoothing = settings["label_smoothing"]
            logits = torch.nn.functional.linear(x, weight)
            return torch.nn.functional.cross_entropy(
                widened(logits), targets, reduction="none", label_smoothing=smoothing
            )

        return [Peer("torch linear, cross_entropy", function, gradients=(0, 1))]


WORKLOAD = LinearCrossEntropy()
