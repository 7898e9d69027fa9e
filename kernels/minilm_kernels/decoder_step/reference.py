"""The specification of decoder_step, in plain array code."""

from __future__ import annotations

from ..attention.reference import attention
from ..dequantize.reference import dequantize
from ..registry import register
from ..rms_norm.reference import rms_norm
from ..rotary.reference import rotary
from ..swiglu.reference import swiglu
from . import WEIGHTS, format_of

_PLAIN = {
    "causal": False, "window": None, "soft_cap": None, "bias": None, "alibi_slopes": None, "key_lengths": None,
    "cu_seqlens": None, "cu_seqlens_k": None, "dropout_p": 0.0, "seed": 0, "score_mod": None, "block_mask": None,
}  # fmt: skip


@register("decoder_step", name="reference")
def decoder_step(x, weights, keys, values, cos, sin, *, length, n_head, eps, windows):
    D = 2 * cos.size
    for arrays, k_room, v_room, window in zip(weights, keys, values, windows):
        layer = dict(zip(WEIGHTS, arrays))
        h, _ = rms_norm(x, layer["input_norm"], eps=eps)
        q, k, v = (_product(h, layer, name).reshape(1, -1, 1, D) for name in ("q", "k", "v"))
        k_room[:, :, length : length + 1] = rotary(k, cos[None], sin[None], interleaved=False)
        v_room[:, :, length : length + 1] = v
        q = rotary(q, cos[None], sin[None], interleaved=False)
        seen = slice(max(0, length + 1 - (window or length + 1)), length + 1)
        out, _ = attention(q, k_room[:, :, seen], v_room[:, :, seen], scale=D**-0.5, **_PLAIN)
        x = x + _product(out.reshape(-1), layer, "o")
        h, _ = rms_norm(x, layer["post_norm"], eps=eps)
        x = x + _product(swiglu(_product(h, layer, "gate"), _product(h, layer, "up")), layer, "down")
    return x


def _product(x, layer, name):
    w, bias = layer[name], layer[f"{name}_bias"]
    format = format_of(w, x.size)
    y = (w if format is None else dequantize(w, format=format, dtype=x.dtype)) @ x
    return y if bias is None else y + bias
