"""The specification of cross_entropy_with_gradient: the two passes that it stands for."""

from __future__ import annotations

from ..cross_entropy.reference import cross_entropy, cross_entropy_backward
from ..registry import register


@register("cross_entropy_with_gradient", name="reference")
def cross_entropy_with_gradient(logits, targets, g, *, ignore_index, label_smoothing, overwrite):
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    losses, logsumexp = cross_entropy(logits, targets, **options)
    dlogits = cross_entropy_backward(logits, g, targets, logsumexp, **options)
    if overwrite:
        logits[...] = dlogits
        dlogits = logits
    return losses, logsumexp, dlogits
