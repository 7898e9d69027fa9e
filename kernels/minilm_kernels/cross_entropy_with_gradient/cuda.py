"""cross_entropy_with_gradient for CUDA: cross_entropy's kernel, asked for both."""

from __future__ import annotations

import numpy as np

from ..cross_entropy.cuda import empty_alike, loss_and_gradient
from ..cuda.launching import DTYPES, contiguous
from ..registry import array_module, register
from ..rows import rows_in_order


@register("cross_entropy_with_gradient", name="cuda", device="cuda", dtypes=DTYPES)
def cross_entropy_with_gradient(logits, targets, g, *, ignore_index, label_smoothing, overwrite):
    xp = array_module(logits)
    (g,) = contiguous(xp, g)
    logits = rows_in_order(logits)
    losses, logsumexp = (xp.empty(len(logits), np.float32) for _ in range(2))
    dlogits = logits if overwrite else empty_alike(logits)
    loss_and_gradient(logits, targets, g, None, losses, logsumexp, dlogits, ignore_index, label_smoothing)
    return losses, logsumexp, dlogits
