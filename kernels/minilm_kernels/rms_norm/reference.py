"""The specification of rms_norm, in plain array code."""

from __future__ import annotations

from ..registry import array_module, register


@register("rms_norm", name="reference")
def rms_norm(x, weight, *, eps, dtype=None):
    rstd = 1 / array_module(x).sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    y = x * rstd if weight is None else x * rstd * weight
    return y if dtype is None else y.astype(dtype), rstd[..., 0]


@register("rms_norm_backward", name="reference")
def rms_norm_backward(x, g, weight, rstd, *, needs):
    g = g.astype(x.dtype, copy=False)
    rstd = rstd[..., None]
    normal = x * rstd
    scaled = g if weight is None else g * weight
    dx = dweight = None
    if needs[0]:
        dx = rstd * (scaled - normal * (scaled * normal).mean(axis=-1, keepdims=True))
    if needs[1]:
        dweight = (g * normal).sum(axis=tuple(range(x.ndim - 1)))
    return dx, dweight
