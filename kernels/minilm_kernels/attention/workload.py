"""attention as the lab runs it."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ..bench.problem import SLACK
from ..bench.workload import Inputs, Peer, Workload


def _longest(rows):
    """The largest Euclidean norm of a row."""
    return math.sqrt((rows * rows).sum(axis=-1).max(initial=0))


_SCORES = 2**24  # that the reference holds at one time


class Attention(Workload):
    operation = "attention"
    sizes = ("B", "H", "T", "D")
    x = "T"
    float32_results = {"forward": (1,)}  # logsumexp
    presets = {
        "default": [
            *((12, 6, 256, 64), (4, 6, 256, 64), (2, 12, 1024, 64)),
            *((1, 12, 4096, 64), (1, 16, 2048, 128), (12, 4, 64, 32)),
        ],
        "lengths": [(1, 12, length, 64) for length in (64, 128, 256, 512, 1024, 2048, 4096)],
        "small": [(12, 4, 64, 32), (4, 6, 256, 64)],
        "long": [(1, 1, 16384, 64), (1, 1, 65536, 64)],
        "cuda": [*((16384 // length, 16, length, 128) for length in (2048, 4096, 8192, 16384)), (16, 12, 1024, 64)],
    }
    options = {
        "causal": (False, True),
        "S": (None,),  # the number of keys; None for T
        "groups": (1,),  # query heads that share a key head
        "scale": (None,),
        "lengths": (False,),  # whether each sequence of the batch has a number of keys of its own
        "window": (None,),
        "soft_cap": (None,),
        "bias": ("none",),  # "scores" for one of (B, H, T, S), "heads" for (H, 1, S)
        "alibi": (False,),
        "dropout_p": (0.0,),
        "sequences": (1,),  # packed one after another, where B is 1 and S is T
    }
    awkward = {
        "B": (1, 2),
        "H": (1, 3, 4),
        "T": (0, 1, 5, 16, 49, 65, 130),
        "D": (1, 8, 17, 32, 64),
        "causal": (False, True),
        "S": (None, 0, 1, 6, 48, 131),
        "groups": (1, 2, 4),
        "scale": (None, 0.3, -1.0),
        "lengths": (False, True),
        "window": (None, 1, 20, (3, None), (None, 7)),
        "soft_cap": (None, 2.0),
        "bias": ("none", "none", "scores", "heads"),
        "alibi": (False, False, True),
        "dropout_p": (0.0, 0.0, 0.3),
        "sequences": (1, 3),
    }

    def build(self, draw, *, B, H, T, D, S, groups, lengths, bias, alibi, dropout_p, sequences, **settings):
        S = T if S is None else S
        Hk = H // math.gcd(H, groups)
        if bias != "none":
            settings["bias"] = draw.normal(*((B, H, T, S) if bias == "scores" else (H, 1, S)))
        if alibi:
            settings["alibi_slopes"] = draw.normal(H, scale=0.1)
        if dropout_p:
            settings |= {"dropout_p": dropout_p, "seed": int(draw.integers(0, 2**62))}
        if _packed(B, T, S, sequences) and not lengths:
            settings["cu_seqlens"] = _bounds(T, sequences)
        elif lengths:
            settings["key_lengths"] = draw.integers(0, S + 1, B)
        settings = {name: value for name, value in settings.items() if value is not None}
        return Inputs((draw.normal(B, H, T, D), draw.normal(B, Hk, S, D), draw.normal(B, Hk, S, D)), settings)

    def backward(self, draw, inputs, outputs):
        out, logsumexp = outputs
        settings = inputs.settings | ({"bias_gradient": True} if "bias" in inputs.settings else {})
        return Inputs((draw.normal(*out.shape), *inputs.args, out, logsumexp), settings)

    def flops(self, mode, *, B, H, T, D, causal, S, window, sequences, **others):
        """Two products forward, five backward, of the pairs of a query and a key that `causal` and `window` leave."""
        S = T if S is None else S
        cuts = np.diff(_bounds(T, sequences)) if _packed(B, T, S, sequences) else [T]
        pairs = sum(_pairs(length, S if len(cuts) == 1 else length, causal, window) for length in cuts)
        return {"forward": 4, "backward": 10}[mode] * B * H * D * pairs

    def reference(self, function, inputs):
        """Some queries at a time: each has its own row of scores, and the gradients of k and v are sums over them."""
        *g, q, k, v = inputs.args if len(inputs.args) == 3 else inputs.args[:4]
        (B, H, T, _), S = q.shape, k.shape[2]
        step = max(1, _SCORES // max(1, B * H * S))
        if step >= T or not set(inputs.settings) <= {
            "causal",
            "scale",
            "soft_cap",
        }:  # other settings may speak of all queries
            return function(*inputs.args, **inputs.settings)
        run = partial(_block, function, inputs, bool(g))
        blocks = [run(first, min(first + step, T)) for first in range(0, T, step)]
        if not g:
            return tuple(np.concatenate(parts, axis=2) for parts in zip(*((out, lse) for out, lse in blocks)))
        dk, dv = np.zeros_like(k), np.zeros_like(v)
        for _, part_of_dk, part_of_dv in blocks:
            seen = part_of_dk.shape[2]
            dk[:, :, :seen] += part_of_dk
            dv[:, :, :seen] += part_of_dv
        return np.concatenate([dq for dq, _, _ in blocks], axis=2), dk, dv

    def cancelling(self, mode, inputs, exact):
        """What a score's own rounding comes to: forward in logsumexp, backward in a gradient; and the largest term of
        which dq and dk are differences: with one key, for example, they are rounding alone.

        In long rows they are not, and the scores would be as large as the machine.
        """
        q, k = inputs.args[:2] if mode == "forward" else inputs.args[1:3]
        score = abs(inputs.settings.get("scale") or q.shape[3] ** -0.5) * _longest(q) * _longest(k)
        if mode == "forward":
            return score / SLACK
        g, q, k, v, _, logsumexp = inputs.args
        rounding = score / SLACK * max((np.abs(x).max(initial=0) for x in exact if x is not None), default=0.0)
        if q.size * k.shape[2] > _SCORES:
            return rounding
        k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1).swapaxes(2, 3) for x in (k, v))
        scale = inputs.settings.get("scale", q.shape[3] ** -0.5)
        finite = np.where(np.isfinite(logsumexp), logsumexp, np.inf)[..., None]
        weights = np.exp(np.minimum(scale * q @ k - finite, 0))
        if inputs.settings.keys() & {"soft_cap", "bias", "alibi_slopes", "dropout_p"}:  # then they may be anything
            weights = 1 / (1 - inputs.settings.get("dropout_p", 0))
        largest = max(1.0, abs(scale) * max(np.abs(x).max(initial=0) for x in (q, k)))
        return max(rounding, largest * (weights * np.abs(g @ v)).max(initial=0))

    def torch(self, torch, mode, settings):
        if not set(settings) <= {"causal", "scale"}:
            return []  # it would take a mask of all pairs, which is another computation, or doesn't have it
        backends = torch.nn.attention.SDPBackend

        def function(q, k, v):
            if settings["causal"] and q.shape[2] != k.shape[2]:
                raise NotImplementedError("torch aligns the causal mask top left")
            return torch.nn.functional.scaled_dot_product_attention(
                *(q, k, v),
                is_causal=settings["causal"],
                scale=settings.get("scale"),
                enable_gqa=q.shape[1] != k.shape[1],
            )

        def peer(name, backend, devices):
            context = partial(torch.nn.attention.sdpa_kernel, backend)
            return Peer(f"torch sdpa {name}", function, gradients=(0, 1, 2), context=context, devices=devices)

        return [
            peer("flash", backends.FLASH_ATTENTION, ("cpu", "cuda")),
            peer("cudnn", backends.CUDNN_ATTENTION, ("cuda",)),
            peer("efficient", backends.EFFICIENT_ATTENTION, ("cuda",)),
            peer("math", backends.MATH, ("cuda",)),
        ]


def _packed(B, T, S, sequences):
    return sequences > 1 and B == 1 and T == S


def _bounds(T, sequences):
    """Where sequences of nearly equal length begin and end in T."""
    return np.linspace(0, T, sequences + 1).round().astype(np.int64)


def _pairs(T, S, causal, window):
    """How many pairs of a query and a key are not masked."""
    position = S - T + np.arange(T)
    first, last = np.zeros(T, np.int64), np.full(T, S - 1)
    if window is not None:
        left, right = (window - 1, window - 1) if isinstance(window, int) else window
        first = first if left is None else np.maximum(first, position - left)
        last = last if right is None else np.minimum(last, position + right)
    if causal:
        last = np.minimum(last, position)
    return int(np.maximum(0, last - first + 1).sum())


def _block(function, inputs, backward, first, stop):
    """The reference on queries `first` to `stop`, with the keys that they may see."""
    arrays = list(inputs.args)
    places = (0, 1, 4, 5) if backward else (0,)  # those with a row for each query
    keys = (2, 3) if backward else (1, 2)
    T, S = arrays[places[-1] if not backward else 1].shape[2], arrays[keys[0]].shape[2]
    for place in places:
        arrays[place] = arrays[place][:, :, first:stop]
    if inputs.settings["causal"]:  # cut so that the mask stays aligned bottom right
        for place in keys:
            arrays[place] = arrays[place][:, :, : max(0, S - T + stop)]
    return function(*arrays, **inputs.settings)


WORKLOAD = Attention()
