"""decoder_step as the lab runs it; its peer is the same step in torch, in float32."""

from __future__ import annotations

import numpy as np

from .. import dequantize, quantize
from ..bench.workload import Inputs, Peer, Workload
from . import WEIGHTS, format_of


class DecoderStep(Workload):
    operation = "decoder_step"
    sizes = (
        "L",
        "C",
        "G",
        "K",
        "D",
        "F",
        "S",
    )
    # Layers, channels, query heads a key head, key heads, their size, the inner width of the feed-forward part, keys.
    x = "S"
    presets = {"default": [(30, 576, 3, 3, 64, 1536, 256), (4, 2048, 4, 8, 64, 8192, 1024)]}
    options = {"format": ("float", "Q4_1", "Q8_0", "Q4_0"), "bias": (False,), "window": (None,)}
    awkward = {
        "L": (0, 1, 2),
        "C": (32, 96),
        "G": (1, 3),
        "K": (1, 2),
        "D": (2, 16, 64),
        "F": (32, 160),
        "S": (1, 2, 9, 600),
        "format": ("float", "Q4_1", "Q8_0", "Q4_0", "mixed"),
        "bias": (False, True),
        "window": (None, 1, 5),
    }
    multiple_of = {"C": 32, "D": 2, "F": 32}
    layouts = ("contiguous",)  # others are the reference's
    in_place = True

    def build(self, draw, *, L, C, G, K, D, F, S, format, bias, window):
        H, formats = G * K, ("float", "Q4_1", "Q8_0", "Q4_0")
        shapes = {"q": (H * D, C), "k": (K * D, C), "v": (K * D, C), "o": (C, H * D)}
        shapes |= {"gate": (F, C), "up": (F, C), "down": (C, F)}

        def matrix(N, width, number):
            kind = formats[number % len(formats)] if format == "mixed" else format
            w = draw.normal(N, width, scale=width**-0.5)
            # The rows after heads, and of few channels, may be no whole blocks.
            return w if kind == "float" or width % 32 else quantize(w, format=kind)

        def layer():
            made = {name: matrix(*shape, number) for number, (name, shape) in enumerate(shapes.items())}
            made |= {name: 1 + draw.normal(C, scale=0.1) for name in ("input_norm", "post_norm")}
            made |= {f"{name}_bias": draw.normal(N) if bias else None for name, (N, _) in shapes.items()}
            return tuple(made[name] for name in WEIGHTS)

        weights = [layer() for _ in range(L)]
        keys, values = ([draw.normal(1, K, S + 3, D) for _ in range(L)] for _ in range(2))
        angles = draw.normal(D // 2)
        settings = {"length": S - 1, "n_head": H, "windows": (window,) * L}
        return Inputs((draw.normal(C), weights, keys, values, np.cos(angles), np.sin(angles)), settings)

    def results(self, returned, args):
        return (returned, *args[2], *args[3])

    def flops(self, mode, *, L, C, G, K, D, F, S, format, bias, window):
        seen = min(S, window or S)
        return L * (4 * C * (G + 1) * K * D + 6 * C * F + 4 * G * K * D * seen)

    def bytes_moved(self, mode, inputs, results):
        _, weights, keys, values, *_ = inputs.args
        seen = (inputs.settings["length"] + 1) / max(keys[0].shape[2], 1) if keys else 0
        read = sum(array.nbytes for layer in weights for array in layer if array is not None)
        return read + seen * sum(array.nbytes for array in (*keys, *values))

    def cancelling(self, mode, inputs, exact):
        """Sums of many products, several of them in a row, each of whose terms is about as large as the stream."""
        return 4 * max(np.abs(array).max(initial=0) for array in exact)

    def torch(self, torch, mode, settings):
        silu, norm = torch.nn.functional.silu, torch.nn.functional.rms_norm
        unpacked = {}  # by address: at the first call, which isn't timed

        def matrix(array, K):
            if array.dtype != torch.uint8:
                return array
            if array.data_ptr() not in unpacked:
                blocks = array.numpy()
                unpacked[array.data_ptr()] = torch.from_numpy(dequantize(blocks, format=format_of(blocks, K)))
            return unpacked[array.data_ptr()]

        def function(x, weights, keys, values, cos, sin):
            D, n, length = 2 * len(cos), settings["n_head"], settings["length"]
            for number, arrays in enumerate(weights):
                layer, window = dict(zip(WEIGHTS, arrays)), settings["windows"][number]

                def product(y, name, layer=layer):
                    return torch.nn.functional.linear(y, matrix(layer[name], y.shape[-1]), layer[f"{name}_bias"])

                h = norm(x, x.shape, layer["input_norm"], 1e-6)
                q, k, v = (product(h, name).reshape(1, -1, 1, D) for name in ("q", "k", "v"))
                q, k = (_turned(torch, part, cos, sin) for part in (q, k))
                keys[number][:, :, length], values[number][:, :, length] = k[:, :, 0], v[:, :, 0]
                seen = slice(max(0, length + 1 - (window or length + 1)), length + 1)
                attended = torch.nn.functional.scaled_dot_product_attention(
                    q, keys[number][:, :, seen], values[number][:, :, seen], enable_gqa=k.shape[1] != n
                )
                x = x + product(attended.reshape(-1), "o")
                h = norm(x, x.shape, layer["post_norm"], 1e-6)
                x = x + product(silu(product(h, "gate")) * product(h, "up"), "down")
            return x

        return [Peer("torch float32", function)]


def _turned(torch, x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


WORKLOAD = DecoderStep()
