"""The specification of log_softmax, in plain array code."""

from __future__ import annotations

import numpy as np

from ..registry import array_module, register


@register("log_softmax", name="reference")
def log_softmax(x, *, axis):
    if x.size == 0:
        return x.copy()
    xp = array_module(x)
    largest = x.max(axis=axis, keepdims=True)
    shifted = x - xp.where(xp.isinf(largest), 0, largest)
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of nothing but -inf
        return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))


@register("log_softmax_backward", name="reference")
def log_softmax_backward(g, y, *, axis):
    return g - array_module(y).exp(y) * g.sum(axis=axis, keepdims=True)
