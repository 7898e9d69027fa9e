"""The specification of gelu, in plain array code."""

from __future__ import annotations

import math

import numpy as np

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
    return 0.5 * (1 + erf_values(x / math.sqrt(2)))


def erf_values(x):
    """The error function of an array's elements, in its dtype (what `minilm.ops.erf` computes, too)."""
    if array_module(x) is np:  # NumPy has no erf; Python's is exact, one number at a time
        return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)
    from cupyx.scipy.special import erf

    return erf(x)
