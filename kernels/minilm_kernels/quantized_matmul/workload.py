"""quantized_matmul as the lab runs it; its peer multiplies with the same weight in float32."""

from __future__ import annotations

import numpy as np

from .. import dequantize, quantize
from ..bench.workload import Inputs, Peer, Workload


class QuantizedMatmul(Workload):
    operation = "quantized_matmul"
    sizes = ("M", "N", "K")
    x = "M"
    presets = {
        "default": [(1, 4096, 4096), (1, 11008, 4096), (1, 50257, 768), (1, 576, 576), (256, 4096, 4096)],
        "rows": [(m, 4096, 4096) for m in (1, 2, 4, 8, 16, 32, 64, 128, 256)],
    }
    options = {"format": ("Q8_0", "Q4_0", "Q4_1")}
    awkward = {
        "M": (0, 1, 2, 3, 4, 5, 9, 70),
        "N": (0, 1, 2, 3, 5, 70, 301),
        "K": (0, 32, 64, 96, 1056),
        "format": ("Q8_0", "Q4_0", "Q4_1"),
    }
    multiple_of = {"K": 32}

    def build(self, draw, *, M, N, K, format):
        return Inputs((draw.normal(M, K), quantize(draw.normal(N, K), format=format)), {"format": format})

    def flops(self, mode, *, M, N, K, format):
        return 2 * M * N * K

    def cancelling(self, mode, inputs, exact):
        x, blocks = inputs.args
        weight = dequantize(blocks, **inputs.settings)
        return (np.abs(x).astype(np.float32) @ np.abs(weight).T).max(initial=0)

    def torch(self, torch, mode, settings):
        weights = {}  # by address: unpacked at the first call, which isn't timed

        def function(x, blocks):
            key = blocks.data_ptr()
            if key not in weights:
                weights[key] = torch.from_numpy(dequantize(blocks.numpy(), **settings)).to(x.dtype)
            return torch.nn.functional.linear(x, weights[key])

        return [Peer("torch float32", function)]


WORKLOAD = QuantizedMatmul()
