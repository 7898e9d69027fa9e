"""Root-mean-square normalisation and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["rms_norm", "rms_norm_backward"]


def rms_norm(x, weight=None, *, eps=1e-6, dtype=None, implementation="auto"):
    """Each row scaled to a mean square of 1, then by `weight` (Zhang & Sennrich 2019, arXiv:1910.07467).

    y = x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + eps), over the last axis.

    `x` (..., C); `weight` (C,) of x's dtype, or None for ones. Returns (y, rstd): y like x, rstd (...), which the
    backward pass takes. Of a float32 x, y may be rounded to a `dtype` of 16 bits in the same pass. ValueError or
    TypeError for other shapes or dtypes.

    >>> rms_norm(np.array([[1.0, -1.0], [2.0, 2.0]]), None, eps=0.0)
    (array([[ 1., -1.],
           [ 1.,  1.]]), array([1. , 0.5]))
    """
    checks.has_columns("x", x)
    if weight is not None:
        checks.matches("weight", weight, x.shape[-1:], x.dtype)
    return registry.call("rms_norm", implementation, x, weight, eps=eps, **checks.narrower(dtype, x))


def rms_norm_backward(g, x, weight, rstd, *, needs=(True, True), implementation="auto"):
    """The gradients of `rms_norm` for x and weight, from `g`, the one that arrives at y.

    With n = x rstd and h = g weight:  dx = rstd (h - n mean(h n)), dweight = sum g n: the mean over the last axis, the
    sum over all others.

    `g` and `x` (..., C), `weight` (C,) or None, `rstd` (...) as the forward pass returned it; `g` has y's dtype.
    Returns (dx, dweight) of x's, with None for what `needs` says is not needed.

    >>> x = np.array([[3.0, 3.0]])
    >>> y, rstd = rms_norm(x, None, eps=0.0)
    >>> rms_norm_backward(np.array([[1.0, 0.0]]), x, None, rstd, needs=(False, True))
    (None, array([1., 0.]))
    """
    checks.has_columns("x", x)
    checks.matches_or_narrower("g", g, x.shape, x.dtype)
    if weight is not None:
        checks.matches("weight", weight, x.shape[-1:], x.dtype)
    checks.matches("rstd", rstd, x.shape[:-1], x.dtype)
    return registry.call("rms_norm_backward", implementation, x, g, weight, rstd, needs=tuple(needs))
