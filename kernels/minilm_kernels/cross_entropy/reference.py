"""The specification of cross_entropy, in plain array code."""

from __future__ import annotations

import numpy as np

from ..checks import wide
from ..portable import check_range
from ..registry import array_module, register
from . import out_of_range


@register("cross_entropy", name="reference")
def cross_entropy(logits, targets, *, ignore_index, label_smoothing):
    xp = array_module(logits)
    rows, classes, counted = _classes(logits, targets, ignore_index)
    logits = logits.astype(wide(logits), copy=False)
    largest = logits.max(axis=1)
    largest = xp.where(xp.isinf(largest), 0, largest)
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of nothing but -inf: log 0, and no class is possible
        logsumexp = xp.log(xp.exp(logits - largest[:, None]).sum(axis=1)) + largest
        losses = logsumexp - (1 - label_smoothing) * logits[rows, classes]
        if label_smoothing:
            losses = losses - label_smoothing * logits.mean(axis=1)
    return xp.where(counted, losses, 0), logsumexp


@register("cross_entropy_backward", name="reference")
def cross_entropy_backward(logits, g, targets, logsumexp, *, ignore_index, label_smoothing):
    xp = array_module(logits)
    rows, classes, counted = _classes(logits, targets, ignore_index)
    with np.errstate(invalid="ignore"):
        dlogits = xp.exp(logits.astype(wide(logits), copy=False) - logsumexp[:, None])
    dlogits[rows, classes] -= 1 - label_smoothing
    dlogits -= label_smoothing / logits.shape[1]
    return xp.where(counted[:, None], dlogits * g[:, None], 0).astype(logits.dtype, copy=False)


def _classes(logits, targets, ignore_index):
    """The rows' numbers, their targets (0 where ignored), and which of them count."""
    xp = array_module(logits)
    V, counted = logits.shape[1], targets != ignore_index
    check_range(targets, V, lambda row, target: out_of_range(row, target, V, ignore_index), counted=counted)
    return xp.arange(len(targets)), xp.where(counted, targets, 0).astype(xp.int64), counted
