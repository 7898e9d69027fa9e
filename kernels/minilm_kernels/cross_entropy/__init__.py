"""Cross-entropy of logits against class numbers, and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["cross_entropy", "cross_entropy_backward"]


def cross_entropy(logits, targets, *, ignore_index=-100, label_smoothing=0.0, implementation="auto"):
    """How surprised, in nats, the distribution softmax(logits) is by each row's target.

    loss = logsumexp(x) - (1 - s) x[target] - s mean(x), where s = `label_smoothing` in [0, 1] is the share of the
    target's weight that is spread evenly over all V classes (Szegedy et al. 2015, arXiv:1512.00567).

    `logits` (N, V) of any floating dtype, `targets` (N,) integers in [0, V), or `ignore_index` for rows that don't
    count: their loss is 0. Returns (losses (N,), logsumexp (N,)), float32 where the logits have 16 bits; the mean or
    sum is the caller's. ValueError for a target out of range, by its row.

    >>> losses, logsumexp = cross_entropy(np.log([[1.0, 3.0], [1.0, 1.0]]), np.array([1, -100]))
    >>> losses, np.exp(logsumexp)
    (array([0.28768207, 0.        ]), array([4., 2.]))
    """
    _check(logits, targets, label_smoothing)
    settings = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return registry.call("cross_entropy", implementation, logits, targets, **settings)


def cross_entropy_backward(
    g, logits, targets, logsumexp, *, ignore_index=-100, label_smoothing=0.0, implementation="auto"
):
    """The gradient of `cross_entropy` for the logits, from `g` (N,), the one that arrives at each row's loss.

    dlogits = g (softmax(x) - (1 - s) onehot(target) - s / V), zero in the rows that are ignored.

    `logsumexp` (N,) is the forward pass's, and `g` of its dtype; the other arguments are those that it had. Returns
    dlogits (N, V), like the logits.

    >>> logits, targets = np.log([[1.0, 3.0]]), np.array([1])
    >>> losses, logsumexp = cross_entropy(logits, targets)
    >>> cross_entropy_backward(np.ones(1), logits, targets, logsumexp)
    array([[ 0.25, -0.25]])
    """
    _check(logits, targets, label_smoothing)
    checks.matches("g", g, logits.shape[:1], checks.wide(logits))
    checks.matches("logsumexp", logsumexp, logits.shape[:1], checks.wide(logits))
    settings = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return registry.call("cross_entropy_backward", implementation, logits, g, targets, logsumexp, **settings)


def out_of_range(row: int, target: int, classes: int, ignore_index: int) -> ValueError:
    """The error that an implementation raises for a target that names no class."""
    return ValueError(
        f"targets[{row}] is {target}; expected a class in [0, {classes}), as the logits have {classes} columns, "
        f"or ignore_index={ignore_index} for a row that doesn't count"
    )


def _check(logits, targets, label_smoothing):
    checks.has_columns("logits", logits)
    if logits.ndim != 2:
        raise ValueError(f"logits has shape {logits.shape}; expected (N, V): reshape it to (-1, {logits.shape[-1]})")
    checks.is_integer("targets", targets, logits.shape[:1])
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a share in [0, 1]")
