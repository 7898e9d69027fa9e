"""The specification of rotary, in plain array code."""

from __future__ import annotations

from ..registry import array_module, register


@register("rotary", name="reference")
def rotary(x, cos, sin, *, interleaved):
    half = cos.shape[-1]
    if cos.ndim == 3:
        cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, R/2)
    first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
    a, b = x[..., first], x[..., second]
    y = array_module(x).array(x, order="K")
    y[..., first] = a * cos - b * sin
    y[..., second] = b * cos + a * sin
    return y


@register("rotary_backward", name="reference")
def rotary_backward(g, cos, sin, *, interleaved):
    return rotary(g, cos, -sin, interleaved=interleaved)
