"""cross_entropy as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload

_BLOCK = 2**25  # logits that the reference sees at one time


def widened(logits):
    """torch's logits, float32 where they have 16 bits: its losses are then what ours are."""
    return logits.float() if logits.element_size() == 2 else logits


class CrossEntropy(Workload):
    operation = "cross_entropy"
    sizes = ("N", "V")
    x = "N"
    presets = {
        "default": [(4096, 50257), (1024, 50257), (4096, 256), (64, 512)],
        "rows": [(n, 50257) for n in (1, 4, 16, 64, 256, 1024)],
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
        return Inputs((draw.normal(N, V, scale=2), targets), {"label_smoothing": label_smoothing})

    def backward(self, draw, inputs, outputs):
        logits, targets = inputs.args
        g = draw.normal(len(logits)).astype(outputs[1].dtype)
        return Inputs((g, logits, targets, outputs[1]), dict(inputs.settings))

    def flops(self, mode, *, N, V, label_smoothing, ignored):
        return N * V * {"forward": 4, "backward": 4}[mode]

    def reference(self, function, inputs):
        """Block by block of rows, which have nothing to do with one another."""
        logits = next(array for array in inputs.args if array.ndim == 2)
        step = max(1, _BLOCK // logits.shape[1])
        if len(logits) <= step:
            return function(*inputs.args, **inputs.settings)
        blocks = [
            function(*(array[first : first + step] for array in inputs.args), **inputs.settings)
            for first in range(0, len(logits), step)
        ]
        if isinstance(blocks[0], tuple):
            return tuple(np.concatenate(parts) for parts in zip(*blocks))
        return np.concatenate(blocks)

    def cancelling(self, mode, inputs, exact):
        if mode == "backward":
            return np.abs(inputs.args[0]).max(initial=0)
        return np.abs(inputs.args[0]).max(initial=0)  # the loss is a difference of logits

    def torch(self, torch, mode, settings):
        def function(logits, targets):
            smoothing = settings["label_smoothing"]
            return torch.nn.functional.cross_entropy(
                widened(logits), targets, reduction="none", label_smoothing=smoothing
            )

        return [Peer("torch", function, gradients=(0,))]


WORKLOAD = CrossEntropy()
