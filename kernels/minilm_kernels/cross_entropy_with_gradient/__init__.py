"""Cross-entropy and its gradient in one pass over the logits."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["cross_entropy_with_gradient"]


def cross_entropy_with_gradient(
    logits, targets, g, *, ignore_index=-100, label_smoothing=0.0, overwrite=False, implementation="auto"
):
    """What `cross_entropy` and `cross_entropy_backward` compute, reading the logits from memory once instead of twice.

    `logits` (N, V) of any floating dtype, `targets` (N,) integers in [0, V) or `ignore_index`; `g` (N,) is the gradient
    that will arrive at each row's loss, known beforehand: 1/N for the mean of N rows. With `overwrite` the gradient
    takes the place of the logits, which must be C-contiguous then. Returns (losses (N,), logsumexp (N,), dlogits
    (N, V)); of logits of 16 bits, `g`, losses and logsumexp are float32. ValueError for a target out of range, by its
    row: what is to be overwritten may have been by then.

    >>> cross_entropy_with_gradient(np.log([[1.0, 3.0]]), np.array([1]), np.ones(1))[2]
    array([[ 0.25, -0.25]])
    """
    checks.has_columns("logits", logits)
    if logits.ndim != 2:
        raise ValueError(f"logits has shape {logits.shape}; expected (N, V): reshape it to (-1, {logits.shape[-1]})")
    checks.is_integer("targets", targets, logits.shape[:1])
    checks.matches("g", g, logits.shape[:1], checks.wide(logits))
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a share in [0, 1]")
    if overwrite and not (logits.flags.c_contiguous and getattr(logits.flags, "writeable", True)):
        raise ValueError("logits to overwrite must be C-contiguous and writeable: copy them, or leave overwrite=False")
    settings = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "overwrite": bool(overwrite)}
    return registry.call("cross_entropy_with_gradient", implementation, logits, targets, g, **settings)
