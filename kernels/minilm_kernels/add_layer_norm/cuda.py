"""add_layer_norm for CUDA: layer_norm's source, given the residual."""

from __future__ import annotations

from ..cuda.launching import DTYPES
from ..layer_norm.cuda import norm_backward, norm_forward, too_wide
from ..registry import register


@register("add_layer_norm", name="cuda", device="cuda", dtypes=DTYPES)
def add_layer_norm(x, residual, weight, bias, *, eps, dtype=None):
    return norm_forward(x, residual, weight, bias, eps, dtype, centered=True)


@register("add_layer_norm_backward", name="cuda", device="cuda", dtypes=DTYPES, limits=too_wide)
def add_layer_norm_backward(total, g, g_total, weight, mean, rstd, *, needs):
    return norm_backward(g, g_total, total, weight, mean, rstd, needs, centered=True)
