"""The specification of swiglu, in plain array code."""

from __future__ import annotations

from ..registry import array_module, register


@register("swiglu", name="reference")
def swiglu(gate, up):
    return gate * _logistic(gate) * up


@register("swiglu_backward", name="reference")
def swiglu_backward(g, gate, up):
    s = _logistic(gate)
    return g * up * s * (1 + gate * (1 - s)), g * gate * s


def _logistic(x):
    """1 / (1 + e^-x), by the exponential that can't overflow."""
    xp = array_module(x)
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1, small) / (1 + small)
