"""The specification of the elementwise functions, in plain array code."""

from __future__ import annotations

from ..portable import erf, where
from ..registry import array_module, register


@register("elementwise", name="reference")
def elementwise(x, *, function):
    xp = array_module(x)
    if function == "relu":
        return xp.maximum(x, 0)
    if function == "sigmoid":
        return _sigmoid(x)
    if function == "erf":
        return erf(x)
    return x * _sigmoid(x) if function == "silu" else getattr(xp, function)(x)


@register("elementwise_backward", name="reference")
def elementwise_backward(g, kept, *, function):
    if function == "silu":
        share = _sigmoid(kept)
        return g * share * (1 + kept * (1 - share))
    if function == "relu":
        return where(kept > 0, g, 0)
    if function == "log":
        return g / kept
    if function == "erf":
        return g * array_module(kept).exp(-kept * kept) * 1.1283791670955126  # 2 / sqrt(pi)
    return g * {"exp": lambda y: y, "sigmoid": lambda y: y * (1 - y), "tanh": lambda y: 1 - y * y}[function](kept)


def _sigmoid(x):
    """By the exponential of the negative side, so that nothing overflows and no digit is lost at either end."""
    xp = array_module(x)
    small = xp.exp(-xp.abs(x))
    return where(x >= 0, 1, small) / (1 + small)
