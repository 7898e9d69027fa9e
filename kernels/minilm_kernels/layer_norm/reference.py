"""The specification of layer_norm, in plain array code."""

from __future__ import annotations

from ..registry import array_module, register


@register("layer_norm", name="reference")
def layer_norm(x, weight, bias, *, eps, dtype=None):
    xp = array_module(x)
    mean = x.mean(axis=-1, keepdims=True)
    rstd = 1 / xp.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + eps)
    y = (x - mean) * rstd
    if weight is not None:
        y = y * weight
    if bias is not None:
        y = y + bias
    return y if dtype is None else y.astype(dtype), mean[..., 0], rstd[..., 0]


@register("layer_norm_backward", name="reference")
def layer_norm_backward(x, g, weight, mean, rstd, *, needs):
    g = g.astype(x.dtype, copy=False)
    rstd = rstd[..., None]
    normal = (x - mean[..., None]) * rstd
    scaled = g if weight is None else g * weight
    other_axes = tuple(range(x.ndim - 1))
    dx = dweight = dbias = None
    if needs[0]:
        dot = (scaled * normal).mean(axis=-1, keepdims=True)
        dx = rstd * (scaled - scaled.mean(axis=-1, keepdims=True) - normal * dot)
    if needs[1]:
        dweight = (g * normal).sum(axis=other_axes)
    if needs[2]:
        dbias = g.sum(axis=other_axes)
    return dx, dweight, dbias
