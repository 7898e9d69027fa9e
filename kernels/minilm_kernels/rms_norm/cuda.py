"""rms_norm for CUDA: the source of layer_norm without the mean."""

from __future__ import annotations

from ..cuda.launching import DTYPES
from ..layer_norm.cuda import norm_backward, norm_forward, too_wide
from ..registry import register


@register("rms_norm", name="cuda", device="cuda", dtypes=DTYPES)
def rms_norm(x, weight, *, eps, dtype=None):
    y, _, _, rstd = norm_forward(x, None, weight, None, eps, dtype, centered=False)
    return y, rstd


@register("rms_norm_backward", name="cuda", device="cuda", dtypes=DTYPES, limits=too_wide)
def rms_norm_backward(x, g, weight, rstd, *, needs):
    return norm_backward(g, None, x, weight, None, rstd, (*needs, False), centered=False)[:2]
