"""rotary as the lab runs it."""

from __future__ import annotations

import numpy as np

from ..bench.workload import Inputs, Peer, Workload


class Rotary(Workload):
    operation = "rotary"
    sizes = ("B", "H", "T", "D")
    x = "T"
    presets = {
        "default": [(12, 6, 256, 64), (1, 32, 2048, 128), (1, 32, 1, 128)],
        "length": [(1, 16, t, 64) for t in (64, 256, 1024, 4096)],
    }
    options = {"interleaved": (False,), "share": (1.0,)}  # share: how much of the features is rotated
    awkward = {
        "B": (0, 1, 2),
        "H": (1, 3),
        "T": (0, 1, 5, 70),
        "D": (1, 2, 7, 34, 64),
        "interleaved": (False, True),
        "share": (0.0, 0.5, 1.0),
    }

    def build(self, draw, *, B, H, T, D, interleaved, share):
        half = int(share * D) // 2
        angles = np.arange(T)[:, None] * 10000.0 ** -(np.arange(half) / max(half, 1))
        tables = (table.astype(draw.dtype) for table in (np.cos(angles), np.sin(angles)))
        return Inputs((draw.normal(B, H, T, D), *tables), {"interleaved": interleaved})

    def backward(self, draw, inputs, outputs):
        return Inputs((draw.normal(*outputs[0].shape), *inputs.args[1:]), dict(inputs.settings))

    def flops(self, mode, *, B, H, T, D, interleaved, share):
        return B * H * T * D * share * 3

    def torch(self, torch, mode, settings):
        if settings["interleaved"]:
            return []

        def function(x, cos, sin):
            half = cos.shape[-1]
            turned, rest = x[..., : 2 * half], x[..., 2 * half :]
            other = torch.cat((-turned[..., half:], turned[..., :half]), -1)
            cos, sin = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
            return torch.cat((turned * cos + other * sin, rest), -1)

        return [Peer("torch rotate_half", function, gradients=(0,))]


WORKLOAD = Rotary()
