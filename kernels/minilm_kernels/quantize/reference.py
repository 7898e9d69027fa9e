"""The specification of quantize, in plain array code."""

from __future__ import annotations

from ..block_formats import BLOCK
from ..registry import array_module, register


@register("quantize", name="reference")
def quantize(weight, *, format):
    xp = array_module(weight)
    w = weight.astype("float32").reshape(*weight.shape[:-1], weight.shape[-1] // BLOCK, BLOCK)
    w = w + xp.float32(0)  # a zero's sign would go into the scale
    if format == "Q8_0":
        d = xp.abs(w).max(axis=-1, keepdims=True) / 127
        n = w * _reciprocal(xp, d)
        whole = xp.trunc(n)
        q = whole + xp.sign(n) * (xp.abs(n - whole) >= 0.5)
        parts = [_half(d), q.astype("int8").view("uint8")]
    else:
        if format == "Q4_0":
            d = xp.take_along_axis(w, xp.abs(w).argmax(axis=-1)[..., None], axis=-1) / -8
            n = w * _reciprocal(xp, d) + xp.float32(8.5)
            parts = [_half(d)]
        else:
            m = w.min(axis=-1, keepdims=True)
            d = (w.max(axis=-1, keepdims=True) - m) / 15
            n = (w - m) * _reciprocal(xp, d) + xp.float32(0.5)
            parts = [_half(d), _half(m)]
        q = xp.minimum(n, 15).astype("uint8")
        parts.append(q[..., : BLOCK // 2] | q[..., BLOCK // 2 :] << 4)
    blocks = xp.concatenate(parts, axis=-1)
    return blocks.reshape(*weight.shape[:-1], blocks.shape[-2] * blocks.shape[-1])


def _reciprocal(xp, d):
    """1 / d, and 0 for a d so small that 1 / d would overflow: as a float16 that is zero too."""
    usable = xp.abs(d) >= xp.finfo("float32").tiny
    return usable / xp.where(usable, d, xp.float32(1))


def _half(d):
    return d.astype("float16").view("uint8")
