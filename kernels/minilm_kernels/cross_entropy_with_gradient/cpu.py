"""cross_entropy_with_gradient for the CPU: a row's exponentials, computed once, are its gradient but for a factor.

The kernel returns the number of a row whose target names no class, or -1: it touches nothing of such a row.
"""

from __future__ import annotations

import numpy as np

from ..chunks import parts_for
from ..cross_entropy import out_of_range
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import exp, largest

_ZERO, _ONE = np.float32(0), np.float32(1)


@register("cross_entropy_with_gradient", name="cpu", device="cpu", dtypes=("float32",))
def cross_entropy_with_gradient(logits, targets, g, *, ignore_index, label_smoothing, overwrite):
    logits = np.ascontiguousarray(logits)
    dlogits = logits if overwrite else np.empty_like(logits)
    losses, logsumexp = np.empty(len(logits), np.float32), np.empty(len(logits), np.float32)
    arrays = logits, np.ascontiguousarray(targets, np.int64), np.ascontiguousarray(g), dlogits, losses, logsumexp
    wrong = _rows_all(parts_for(logits.size), *arrays, ignore_index, np.float32(label_smoothing))
    if wrong >= 0:
        raise out_of_range(wrong, int(targets[wrong]), logits.shape[1], ignore_index)
    return losses, logsumexp, dlogits


@jit(inline=True)
def _rows(logits, targets, g, dlogits, losses, logsumexp, ignore_index, smoothing, start, stop):
    spread = smoothing / np.float32(logits.shape[1])
    for row in range(start, stop):
        xs, dxs, target = logits[row], dlogits[row], targets[row]
        if target != ignore_index and not 0 <= target < xs.size:
            return row
        highest = largest(xs)
        shift = highest if np.isfinite(highest) else _ZERO
        chosen, all_logits = _ZERO, _ZERO
        if target != ignore_index:
            chosen = xs[target]
            if smoothing > _ZERO:
                for i in range(xs.size):
                    all_logits += xs[i]
        total = _ZERO
        for i in range(xs.size):
            dxs[i] = exp(xs[i] - shift)
            total += dxs[i]
        logsumexp[row] = np.log(total) + shift
        if target == ignore_index:
            losses[row] = _ZERO
            dxs[:] = _ZERO
            continue
        losses[row] = logsumexp[row] - (_ONE - smoothing) * chosen
        if smoothing > _ZERO:
            losses[row] -= smoothing * (all_logits / np.float32(xs.size))
        scale, shift = g[row] / total, g[row] * spread
        for i in range(xs.size):
            dxs[i] = dxs[i] * scale - shift
        dxs[target] -= g[row] * (_ONE - smoothing)
    return -1


@jit
def _rows_all(parts, logits, targets, g, dlogits, losses, logsumexp, ignore_index, smoothing):
    arguments = logits, targets, g, dlogits, losses, logsumexp, ignore_index, smoothing
    return in_parts(_rows, parts, len(logits), arguments)
