"""The specification of add_rms_norm: a sum, and rms_norm of it."""

from __future__ import annotations

from ..registry import register
from ..rms_norm.reference import rms_norm, rms_norm_backward


@register("add_rms_norm", name="reference")
def add_rms_norm(x, residual, weight, *, eps, dtype=None):
    total = x + residual
    y, rstd = rms_norm(total, weight, eps=eps, dtype=dtype)
    return y, total, rstd


@register("add_rms_norm_backward", name="reference")
def add_rms_norm_backward(total, g, g_total, weight, rstd, *, needs):
    dx, dweight = rms_norm_backward(total, g, weight, rstd, needs=needs)
    return dx + g_total if needs[0] else None, dweight
