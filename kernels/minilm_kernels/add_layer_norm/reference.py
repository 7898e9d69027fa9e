"""The specification of add_layer_norm: a sum, and layer_norm of it."""

from __future__ import annotations

from ..layer_norm.reference import layer_norm, layer_norm_backward
from ..registry import register


@register("add_layer_norm", name="reference")
def add_layer_norm(x, residual, weight, bias, *, eps, dtype=None):
    total = x + residual
    y, mean, rstd = layer_norm(total, weight, bias, eps=eps, dtype=dtype)
    return y, total, mean, rstd


@register("add_layer_norm_backward", name="reference")
def add_layer_norm_backward(total, g, g_total, weight, mean, rstd, *, needs):
    dx, dweight, dbias = layer_norm_backward(total, g, weight, mean, rstd, needs=needs)
    return dx + g_total if needs[0] else None, dweight, dbias
