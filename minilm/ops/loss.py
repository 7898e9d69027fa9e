"""Losses."""

from __future__ import annotations

import minilm_kernels as kernels

from minilm.autograd import Array, op
from minilm.backend import array_module

from .elementwise import where
from .indexing import gather
from .normalize import log_softmax
from .reductions import mean, sum

__all__ = ["cross_entropy"]

_REDUCTIONS = ("mean", "sum", "none")


@op(keeps=("logsumexp",))
def _cross_entropy(logits: Array, targets, ignore_index, label_smoothing, reduction):
    rows = logits.reshape(-1, logits.shape[-1])
    losses, logsumexp = kernels.cross_entropy(
        rows, targets.reshape(-1), ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    if reduction == "none":
        return losses.reshape(targets.shape), logsumexp
    total = losses.sum()
    return (total if reduction == "sum" else total / _counted(targets, ignore_index)), logsumexp


@_cross_entropy.gradient
def _(g, logits, logsumexp, targets, ignore_index, label_smoothing, reduction):
    xp = array_module(logits)
    if reduction == "mean":
        g = g / _counted(targets, ignore_index)
    each = xp.ascontiguousarray(xp.broadcast_to(g, targets.shape).reshape(-1))
    rows = logits.reshape(-1, logits.shape[-1])
    dlogits = kernels.cross_entropy_backward(
        each, rows, targets.reshape(-1), logsumexp, ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    return dlogits.reshape(logits.shape)


@_cross_entropy.composition
def _(logits, targets, ignore_index, label_smoothing, reduction):
    xp = array_module(targets)
    counted = targets != ignore_index
    logp = log_softmax(logits, -1)
    chosen = gather(logp, xp.where(counted, targets, 0)[..., None], -1)[..., 0]
    if label_smoothing:  # not 0 times the mean: it may be of -inf, a class that is masked
        chosen = (1 - label_smoothing) * chosen + label_smoothing * mean(logp, -1)
    losses = where(counted, -chosen, 0.0)
    if reduction == "none":
        return losses
    return sum(losses) if reduction == "sum" else sum(losses) / _counted(targets, ignore_index)


def _counted(targets, ignore_index) -> float:
    """The number of targets that count; of none at all the mean is NaN, as in torch."""
    return float((targets != ignore_index).sum()) or float("nan")


def cross_entropy(logits, targets, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean"):
    """-log(softmax(logits)[target]), averaged over the targets that are not `ignore_index`.

    logits (..., V), targets (...) integers 0..V-1: the classes are the last axis (torch puts them second). With
    `label_smoothing` s the target distribution is 1 - s on the target plus s / V on every class. `reduction` is
    "mean", "sum" or "none". Raises ValueError for a target out of range.
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is one of {', '.join(_REDUCTIONS)}, not {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing lies between 0 and 1; got {label_smoothing}")
    targets = getattr(targets, "_data", targets)
    targets = array_module(targets).asarray(targets)
    if tuple(logits.shape[:-1]) != targets.shape:
        raise ValueError(
            f"cross_entropy needs one target for each row of logits: logits {tuple(logits.shape)} fit targets "
            f"{tuple(logits.shape[:-1])}, got {targets.shape}"
        )
    return _cross_entropy(logits, targets, ignore_index, label_smoothing, reduction)
