"""cross_entropy for CUDA, with or without its gradient in the same launch.

A target that names no class makes its row's loss and gradient NaN instead of raising: the host would have to wait for
the card to know of it.
"""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, program, row_threads, same_phase
from ..registry import array_module, register
from ..rows import row_length, rows_in_order

__all__ = ["empty_alike", "loss_and_gradient"]


@register("cross_entropy", name="cuda", device="cuda", dtypes=DTYPES)
def cross_entropy(logits, targets, *, ignore_index, label_smoothing):
    xp = array_module(logits)
    losses, logsumexp = (xp.empty(len(logits), np.float32) for _ in range(2))
    logits = rows_in_order(logits)
    loss_and_gradient(logits, targets, None, None, losses, logsumexp, None, ignore_index, label_smoothing)
    return losses, logsumexp


@register("cross_entropy_backward", name="cuda", device="cuda", dtypes=DTYPES)
def cross_entropy_backward(logits, g, targets, logsumexp, *, ignore_index, label_smoothing):
    xp = array_module(logits)
    g, logsumexp = contiguous(xp, g, logsumexp)
    logits = rows_in_order(logits)
    dlogits = empty_alike(logits)
    loss_and_gradient(logits, targets, g, logsumexp, None, None, dlogits, ignore_index, label_smoothing)
    return dlogits


def loss_and_gradient(logits, targets, g, given, losses, logsumexp, dlogits, ignore_index, label_smoothing) -> None:
    """Launches the kernel, which leaves out what is None of its results.

    The rows of `dlogits` lie as far apart as those of `logits`, which are as `rows_in_order` gives them. `g`, `given`,
    `losses` and `logsumexp` are float32, whatever the logits are.
    """
    xp = array_module(logits)
    rows, columns = logits.shape
    targets = xp.ascontiguousarray(targets, dtype=np.int64)
    kernel = program(__file__, "cross_entropy.cu", logits.dtype).kernel("cross_entropy")
    sizes = np.int32(columns), np.int64(row_length(logits))
    settings = np.int64(ignore_index), np.float32(label_smoothing), same_phase(logits, dlogits)
    threads = row_threads(columns * logits.itemsize // 16, most=512)
    kernel(rows, threads, (logits, targets, g, given, losses, logsumexp, dlogits, *sizes, *settings))


def empty_alike(x):
    """An array like x (N, C) that `rows_in_order` gave, its rows as far apart."""
    return array_module(x).empty((len(x), row_length(x)), x.dtype)[:, : x.shape[1]]
