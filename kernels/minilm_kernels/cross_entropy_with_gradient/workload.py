"""cross_entropy_with_gradient as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload
from ..checks import wide
from ..cross_entropy.workload import widened


class CrossEntropyWithGradient(Workload):
    operation = "cross_entropy_with_gradient"
    sizes = ("N", "V")
    x = "N"
    presets = {
        "default": [(512, 50257), (4096, 256), (64, 512)],
        "rows": [(n, 50257) for n in (1, 4, 16, 64, 256, 512)],
    }
    options = {"label_smoothing": (0.0,), "ignored": (0.0,)}  # ignored: the share of rows that don't count
    awkward = {
        "N": (0, 1, 2, 3, 70, 300),
        "V": (1, 2, 7, 17, 65, 257),
        "label_smoothing": (0.0, 0.1, 1.0),
        "ignored": (0.0, 0.5),
    }

    float32_results = {"forward": (0, 1)}

    def build(self, draw, *, N, V, label_smoothing, ignored):
        targets = draw.integers(0, V, N)
        targets[draw.random.random(N) < ignored] = -100
        logits = draw.normal(N, V, scale=2)
        return Inputs((logits, targets, draw.normal(N).astype(wide(logits))), {"label_smoothing": label_smoothing})

    def flops(self, mode, *, N, V, label_smoothing, ignored):
        return N * V * 6

    def cancelling(self, mode, inputs, exact):
        return max(np.abs(inputs.args[0]).max(initial=0), np.abs(inputs.args[2]).max(initial=0))

    def torch(self, torch, mode, settings):
        def function(logits, targets, g):
            logits = logits.detach().requires_grad_()
            options = {"reduction": "none", "label_smoothing": settings["label_smoothing"]}
            with torch.enable_grad():
                losses = torch.nn.functional.cross_entropy(widened(logits), targets, **options)
            return losses, None, *torch.autograd.grad(losses, logits, g)

        return [Peer("torch, both passes", function)]


WORKLOAD = CrossEntropyWithGradient()
