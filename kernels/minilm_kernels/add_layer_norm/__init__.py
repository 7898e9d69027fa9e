"""Layer normalisation of a sum, the residual stream's with what is added to it, and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["add_layer_norm", "add_layer_norm_backward"]


def add_layer_norm(x, residual, weight=None, bias=None, *, eps=1e-5, dtype=None, implementation="auto"):
    """`layer_norm` of total = x + residual, and the total, in one pass: the step from one sublayer to the next.

    `x` and `residual` (..., C) of one floating dtype; `weight` and `bias` (C,) of the same, or None for ones and zeros.
    Returns (y, total, mean, rstd): y and total like x, mean and rstd (...), of which the backward pass takes the last
    three. Of a float32 x, y may be rounded to a `dtype` of 16 bits in the same pass. ValueError or TypeError for other
    shapes or dtypes.

    >>> y, total, mean, rstd = add_layer_norm(np.array([[1.0, 2.0]]), np.array([[0.0, 1.0]]), eps=0.0)
    >>> y, total
    (array([[-1.,  1.]]), array([[1., 3.]]))
    """
    checks.has_columns("x", x)
    checks.matches("residual", residual, x.shape, x.dtype)
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None:
            checks.matches(name, array, x.shape[-1:], x.dtype)
    settings = {"eps": eps, **checks.narrower(dtype, x)}
    return registry.call("add_layer_norm", implementation, x, residual, weight, bias, **settings)


def add_layer_norm_backward(g, g_total, total, weight, mean, rstd, *, needs=(True, True, True), implementation="auto"):
    """The gradients of `add_layer_norm` from `g` and `g_total`, those that arrive at y and at the total.

    What `layer_norm_backward` gives for the total, and `g_total` is added to its dx: the gradient of both summands.

    `g`, `g_total` and `total` (..., C), the rest as the forward pass took and returned them; `g` has y's dtype. Returns
    (dx, dweight, dbias) of the total's, with None for those that `needs` says are not needed.

    >>> y, total, mean, rstd = add_layer_norm(np.array([[1.0, 2.0]]), np.array([[0.0, 1.0]]), eps=0.0)
    >>> add_layer_norm_backward(np.ones((1, 2)), np.ones((1, 2)), total, None, mean, rstd, needs=(True, False, False))
    (array([[1., 1.]]), None, None)
    """
    checks.has_columns("total", total)
    checks.matches_or_narrower("g", g, total.shape, total.dtype)
    checks.matches("g_total", g_total, total.shape, total.dtype)
    if weight is not None:
        checks.matches("weight", weight, total.shape[-1:], total.dtype)
    checks.matches("mean", mean, total.shape[:-1], total.dtype)
    checks.matches("rstd", rstd, total.shape[:-1], total.dtype)
    args = total, g, g_total, weight, mean, rstd
    return registry.call("add_layer_norm_backward", implementation, *args, needs=tuple(needs))
