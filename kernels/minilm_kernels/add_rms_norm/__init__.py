"""RMS normalisation of a sum, the residual stream's with what is added to it, and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["add_rms_norm", "add_rms_norm_backward"]


def add_rms_norm(x, residual, weight=None, *, eps=1e-6, dtype=None, implementation="auto"):
    """`rms_norm` of total = x + residual, and the total, in one pass: the step from one sublayer to the next.

    `x` and `residual` (..., C) of one floating dtype; `weight` (C,) of the same, or None for ones. Returns (y, total,
    rstd): y and total like x, rstd (...), of which the backward pass takes the last two. Of a float32 x, y may be
    rounded to a `dtype` of 16 bits in the same pass. ValueError or TypeError for other shapes or dtypes.

    >>> add_rms_norm(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]), eps=0.0)
    (array([[1., 1.]]), array([[2., 2.]]), array([0.5]))
    """
    checks.has_columns("x", x)
    checks.matches("residual", residual, x.shape, x.dtype)
    if weight is not None:
        checks.matches("weight", weight, x.shape[-1:], x.dtype)
    return registry.call("add_rms_norm", implementation, x, residual, weight, eps=eps, **checks.narrower(dtype, x))


def add_rms_norm_backward(g, g_total, total, weight, rstd, *, needs=(True, True), implementation="auto"):
    """The gradients of `add_rms_norm` from `g` and `g_total`, those that arrive at y and at the total.

    What `rms_norm_backward` gives for the total, and `g_total` is added to its dx: the gradient of both summands.

    `g`, `g_total` and `total` (..., C), the rest as the forward pass took and returned them; `g` has y's dtype. Returns
    (dx, dweight) of the total's, with None for what `needs` says is not needed.

    >>> y, total, rstd = add_rms_norm(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]), eps=0.0)
    >>> add_rms_norm_backward(np.ones((1, 2)), np.ones((1, 2)), total, None, rstd, needs=(True, False))
    (array([[1., 1.]]), None)
    """
    checks.has_columns("total", total)
    checks.matches_or_narrower("g", g, total.shape, total.dtype)
    checks.matches("g_total", g_total, total.shape, total.dtype)
    if weight is not None:
        checks.matches("weight", weight, total.shape[-1:], total.dtype)
    checks.matches("rstd", rstd, total.shape[:-1], total.dtype)
    args = total, g, g_total, weight, rstd
    return registry.call("add_rms_norm_backward", implementation, *args, needs=tuple(needs))
