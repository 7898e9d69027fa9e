"""The specification of gelu, in plain array code."""

from __future__ import annotations

import math

from ..portable import erf
from ..registry import array_module, register

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


@register("gelu", name="reference")
def gelu(x, bias, *, approximate):
    x = x if bias is None else x + bias
    if approximate == "none":
        return x * _normal_cdf(x)
    xp = array_module(x)
    return 0.5 * x * (1 + xp.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x**3)))


@register("gelu_backward", name="reference")
def gelu_backward(g, x, bias, *, approximate):
    xp = array_module(x)
    x = x if bias is None else x + bias
    if approximate == "none":
        density = xp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return g * (_normal_cdf(x) + x * density)
    tanh = xp.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x**3))
    slope = SQRT_2_OVER_PI * (1 + 3 * 0.044715 * x * x)
    return g * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * slope)


def _normal_cdf(x):
    """Phi(x) = (1 + erf(x / sqrt 2)) / 2."""
    return 0.5 * (1 + erf(x / math.sqrt(2)))
