"""Losses."""

from __future__ import annotations

from contextlib import nullcontext

import minilm_kernels as kernels
from minilm_kernels.checks import wide
from minilm_kernels.cross_entropy import out_of_range
from minilm_kernels.portable import check_range, unchecked_ranges

from minilm.autograd import Array, Tensor, is_grad_enabled, op
from minilm.backend import array_module, check_together, device_of, to_device

from .arithmetic import where
from .gathering import gather
from .linalg import linear
from .normalize import log_softmax
from .reductions import mean, sum

__all__ = ["cross_entropy", "linear_cross_entropy"]

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
    return (total if reduction == "sum" else _mean(total, targets, ignore_index)), logsumexp


@_cross_entropy.gradient
def _(g, logits, logsumexp, targets, ignore_index, label_smoothing, reduction):
    each = _each(g, targets, ignore_index, reduction, logsumexp.dtype)
    rows = logits.reshape(-1, logits.shape[-1])
    with unchecked_ranges():  # the forward pass has looked at them
        dlogits = kernels.cross_entropy_backward(
            each, rows, targets.reshape(-1), logsumexp, ignore_index=ignore_index, label_smoothing=label_smoothing
        )
    return dlogits.reshape(logits.shape)


@_cross_entropy.composition
def _(logits, targets, ignore_index, label_smoothing, reduction):
    xp = array_module(targets)
    counted = targets != ignore_index
    logits = logits.to("float32") if logits.dtype.itemsize == 2 else logits
    logp = log_softmax(logits, -1)
    with unchecked_ranges():
        chosen = gather(logp, xp.where(counted, targets, 0)[..., None], -1)[..., 0]
    if label_smoothing:  # not 0 times the mean: it may be of -inf, a class that is masked
        chosen = (1 - label_smoothing) * chosen + label_smoothing * mean(logp, -1)
    losses = where(counted, -chosen, 0.0)
    if reduction == "none":
        return losses
    return sum(losses) if reduction == "sum" else sum(losses) / _counted(targets, ignore_index, logits.dtype)


def _counted(targets, ignore_index, dtype):
    """The number of targets that count; of none at all the mean is NaN, as in torch.

    On a GPU it is an array that stays there, of `dtype` or, where few numbers are exact in that, float32.
    """
    count = (targets != ignore_index).sum()
    if device_of(targets) == "cpu":
        return float(count) or float("nan")
    xp = array_module(targets)
    return xp.where(count == 0, xp.nan, count).astype(dtype if dtype.itemsize >= 4 else "float32")


def _mean(total, targets, ignore_index):
    return (total / _counted(targets, ignore_index, total.dtype)).astype(total.dtype)


def cross_entropy(logits, targets, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean"):
    """-log(softmax(logits)[target]), averaged over the targets that are not `ignore_index`.

    logits (..., V), targets (...) integers 0..V-1: the classes are the last axis (torch puts them second). With
    `label_smoothing` s the target distribution is 1 - s on the target plus s / V on every class. `reduction` is
    "mean", "sum" or "none". The loss is float32 where the logits have 16 bits. Raises ValueError for a target out of
    range.

    >>> import numpy as np
    >>> logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    >>> bool(np.isclose(cross_entropy(logits, np.array([0, -100])), np.log(2)))
    True
    """
    targets, looked_at = _checked(logits, "logits", logits.shape[-1], targets, ignore_index, label_smoothing, reduction)
    with looked_at:
        return _cross_entropy(logits, targets, ignore_index, label_smoothing, reduction)


@op(keeps=("dx", "dweight", "dbias"), precision="low")
def _linear_cross_entropy(
    x: Array, weight: Array, bias: Array, targets, ignore_index, label_smoothing, reduction, chunk, ahead
):
    rows, flat = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    settings = {"bias": bias, "ignore_index": ignore_index, "label_smoothing": label_smoothing, "chunk": chunk}
    if ahead:
        settings["g"] = _each(1.0, targets, ignore_index, reduction, wide(x))
    losses, _, *gradients = kernels.linear_cross_entropy(rows, weight, flat, **settings)
    dx, dweight, dbias = gradients or (None, None, None)
    if reduction == "none":
        return losses.reshape(targets.shape), dx, dweight, dbias
    total = losses.sum()
    return total if reduction == "sum" else _mean(total, targets, ignore_index), dx, dweight, dbias


@_linear_cross_entropy.gradient
def _(g, x, weight, bias, dx, dweight, dbias, targets, ignore_index, label_smoothing, reduction, chunk):
    if dx is None:
        each = _each(g, targets, ignore_index, reduction, wide(x))
        settings = {"bias": bias, "ignore_index": ignore_index, "label_smoothing": label_smoothing, "chunk": chunk}
        rows = x.reshape(-1, x.shape[-1])
        with unchecked_ranges():
            found = kernels.linear_cross_entropy_backward(each, rows, weight, targets.reshape(-1), **settings)
        dx, dweight, dbias = found
    elif device_of(g) == "cuda" or g != 1:  # (on a GPU to look at it is to wait for it)
        dx, dweight, dbias = (None if array is None else array * g for array in (dx, dweight, dbias))
    return dx.reshape(x.shape), dweight, dbias


@_linear_cross_entropy.composition
def _(x, weight, bias, targets, ignore_index, label_smoothing, reduction, chunk, ahead):
    return cross_entropy(linear(x, weight, bias), targets, ignore_index, label_smoothing, reduction)


def _each(g, targets, ignore_index, reduction, dtype):
    """The gradient (N,) of each row's loss where that of the reduced one is `g`."""
    xp = array_module(targets)
    if reduction == "mean":
        g = g / _counted(targets, ignore_index, dtype)
    return xp.ascontiguousarray(xp.broadcast_to(xp.asarray(g, dtype), targets.shape).reshape(-1))


def linear_cross_entropy(
    x,
    weight,
    targets,
    bias=None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    chunk: int | None = None,
):
    """cross_entropy(linear(x, weight, bias), targets), without ever holding the logits of more than `chunk` rows.

    x (..., C), weight (V, C), bias (V,) or None, targets (...) integers 0..V-1; the settings are `cross_entropy`'s.
    What a model with a large vocabulary needs most of its memory for, its logits and their gradient, is not there;
    None lets the kernel choose `chunk`. Where gradients are wanted and `reduction` is "mean" or "sum", they are made
    in the forward pass, while a chunk's logits are there (Hsu et al. 2024, https://arxiv.org/abs/2410.10989); with
    "none" the backward pass computes the logits again. Raises ValueError for a target out of range.

    >>> import numpy as np
    >>> linear_cross_entropy(np.zeros((5, 3), np.float32), np.zeros((4, 3), np.float32), np.arange(5) % 4).round(4)
    np.float32(1.3863)
    """
    targets, looked_at = _checked(x, "x", weight.shape[0], targets, ignore_index, label_smoothing, reduction)
    wanted = is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in (x, weight, bias))
    ahead = wanted and reduction != "none"
    with looked_at:
        return _linear_cross_entropy(x, weight, bias, targets, ignore_index, label_smoothing, reduction, chunk, ahead)


def _checked(x, name, V, targets, ignore_index, label_smoothing, reduction):
    """The targets as an array where `x` is; ValueError unless they fit it and the settings are what they can be.

    Also a context: targets that come from the host to a GPU are looked at here, and then need not be looked at there.
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is one of {', '.join(_REDUCTIONS)}, not {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing lies between 0 and 1; got {label_smoothing}")
    if V == 0:
        raise ValueError(f"cross_entropy needs one class or more; {name} has shape {tuple(x.shape)}")
    targets = getattr(targets, "_data", targets)
    targets = array_module(targets).asarray(targets)
    if tuple(x.shape[:-1]) != targets.shape:
        raise ValueError(
            f"cross_entropy needs one target for each row of {name}: {name} {tuple(x.shape)} fit targets "
            f"{tuple(x.shape[:-1])}, got {targets.shape}"
        )
    device = device_of(getattr(x, "_data", x))
    if device == device_of(targets):
        return targets, nullcontext()
    if device == "cpu":
        check_together("cross_entropy", (getattr(x, "_data", x), targets))
    if targets.dtype.kind in "iu":  # else the kernel refuses them
        wrong = lambda row, target: out_of_range(row, target, V, ignore_index)
        check_range(targets, V, wrong, counted=targets != ignore_index)
    return to_device(targets, device), unchecked_ranges()
