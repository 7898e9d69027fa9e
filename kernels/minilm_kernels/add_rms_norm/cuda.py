"""add_rms_norm for CUDA: layer_norm's source without the mean, given the residual."""

from __future__ import annotations

from ..cuda.launching import DTYPES
from ..layer_norm.cuda import norm_backward, norm_forward, too_wide
from ..registry import register


@register("add_rms_norm", name="cuda", device="cuda", dtypes=DTYPES)
def add_rms_norm(x, residual, weight, *, eps, dtype=None):
    y, total, _, rstd = norm_forward(x, residual, weight, None, eps, dtype, centered=False)
    return y, total, rstd


@register("add_rms_norm_backward", name="cuda", device="cuda", dtypes=DTYPES, limits=too_wide)
def add_rms_norm_backward(total, g, g_total, weight, rstd, *, needs):
    return norm_backward(g, g_total, total, weight, None, rstd, (*needs, False), centered=False)[:2]
