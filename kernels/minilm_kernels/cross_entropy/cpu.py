"""cross_entropy for the CPU: a row of logits is read from memory once; its second pass finds it in the cache.

The kernels return the number of a row whose target names no class, or -1: they touch nothing of such a row.
"""

from __future__ import annotations

import numpy as np

from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import exp, largest
from . import out_of_range

_ZERO, _ONE = np.float32(0), np.float32(1)


@register("cross_entropy", name="cpu", device="cpu", dtypes=("float32",))
def cross_entropy(logits, targets, *, ignore_index, label_smoothing):
    losses, logsumexp = np.empty(len(logits), np.float32), np.empty(len(logits), np.float32)
    arrays = np.ascontiguousarray(logits), np.ascontiguousarray(targets, np.int64), losses, logsumexp
    settings = ignore_index, np.float32(label_smoothing)
    wrong = _forward_all(parts_for(logits.size), *arrays, *settings)
    if wrong >= 0:
        raise out_of_range(wrong, int(targets[wrong]), logits.shape[1], ignore_index)
    return losses, logsumexp


@register("cross_entropy_backward", name="cpu", device="cpu", dtypes=("float32",))
def cross_entropy_backward(logits, g, targets, logsumexp, *, ignore_index, label_smoothing):
    logits = np.ascontiguousarray(logits)
    dlogits = np.empty_like(logits)
    arrays = np.ascontiguousarray(g), logits, np.ascontiguousarray(targets, np.int64), np.ascontiguousarray(logsumexp)
    settings = ignore_index, np.float32(label_smoothing)
    wrong = _backward_all(parts_for(logits.size), *arrays, dlogits, *settings)
    if wrong >= 0:
        raise out_of_range(wrong, int(targets[wrong]), logits.shape[1], ignore_index)
    return dlogits


@jit(inline=True)
def _forward(logits, targets, losses, logsumexp, ignore_index, smoothing, start, stop):
    for row in range(start, stop):
        xs, target = logits[row], targets[row]
        if target != ignore_index and not 0 <= target < xs.size:
            return row
        highest = largest(xs)
        shift = highest if np.isfinite(highest) else _ZERO
        total = _ZERO
        for i in range(xs.size):
            total += exp(xs[i] - shift)
        logsumexp[row] = np.log(total) + shift
        if target == ignore_index:
            losses[row] = _ZERO
            continue
        losses[row] = logsumexp[row] - (_ONE - smoothing) * xs[target]
        if smoothing > _ZERO:
            total = _ZERO
            for i in range(xs.size):
                total += xs[i]
            losses[row] -= smoothing * (total / np.float32(xs.size))
    return -1


@jit(inline=True)
def _backward(g, logits, targets, logsumexp, dlogits, ignore_index, smoothing, start, stop):
    spread = smoothing / np.float32(logits.shape[1])
    for row in range(start, stop):
        xs, dxs, target = logits[row], dlogits[row], targets[row]
        if target == ignore_index:
            dxs[:] = _ZERO
            continue
        if not 0 <= target < xs.size:
            return row
        scale, shift = g[row], logsumexp[row]
        for i in range(xs.size):
            dxs[i] = (exp(xs[i] - shift) - spread) * scale
        dxs[target] = (exp(xs[target] - shift) - spread - (_ONE - smoothing)) * scale
    return -1


@jit
def _forward_all(parts, logits, targets, losses, logsumexp, ignore_index, smoothing):
    arguments = (logits, targets, losses, logsumexp, ignore_index, smoothing)
    return in_parts(_forward, parts, len(logits), arguments)


@jit
def _backward_all(parts, g, logits, targets, logsumexp, dlogits, ignore_index, smoothing):
    arguments = (g, logits, targets, logsumexp, dlogits, ignore_index, smoothing)
    return in_parts(_backward, parts, len(logits), arguments)
