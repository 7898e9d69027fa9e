"""The specification of linear_cross_entropy, in plain array code: the logits exist whole here."""

from __future__ import annotations

from ..column_sums.reference import column_sums
from ..cross_entropy.reference import cross_entropy, cross_entropy_backward
from ..products import matmul
from ..registry import register


@register("linear_cross_entropy", name="reference")
def linear_cross_entropy(x, weight, targets, *, bias, g, ignore_index, label_smoothing, chunk):
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    found = cross_entropy(_logits(x, weight, bias), targets, **options)
    if g is None:
        return found
    return *found, *linear_cross_entropy_backward(x, g, weight, targets, bias=bias, chunk=chunk, **options)


@register("linear_cross_entropy_backward", name="reference")
def linear_cross_entropy_backward(x, g, weight, targets, *, bias, ignore_index, label_smoothing, chunk):
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    logits = _logits(x, weight, bias)
    _, logsumexp = cross_entropy(logits, targets, **options)
    dlogits = cross_entropy_backward(logits, g, targets, logsumexp, **options)
    return matmul(dlogits, weight), matmul(dlogits.T, x), None if bias is None else column_sums(dlogits)


def _logits(x, weight, bias):
    logits = matmul(x, weight.T)
    return logits if bias is None else logits + bias
