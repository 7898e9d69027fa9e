"""Layer normalisation and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["layer_norm", "layer_norm_backward"]


def layer_norm(x, weight=None, bias=None, *, eps=1e-5, dtype=None, implementation="auto"):
    """Each row shifted and scaled to mean 0 and variance 1, then to `weight` and `bias` (Ba et al. 2016, 1607.06450).

    y = (x - mean) * rstd * weight + bias with rstd = 1 / sqrt(var + eps), over the last axis; var divides by C.

    `x` (..., C); `weight` and `bias` (C,) of x's dtype, or None for ones and zeros. Returns (y, mean, rstd): y like x,
    mean and rstd (...), which the backward pass takes. Of a float32 x, y may be rounded to a `dtype` of 16 bits in the
    same pass. ValueError or TypeError for other shapes or dtypes.

    >>> y, mean, rstd = layer_norm(np.array([[1.0, 3.0]]), None, None, eps=0.0)
    >>> y, mean, rstd
    (array([[-1.,  1.]]), array([2.]), array([1.]))
    """
    checks.has_columns("x", x)
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None:
            checks.matches(name, array, x.shape[-1:], x.dtype)
    settings = {"eps": eps, **checks.narrower(dtype, x)}
    return registry.call("layer_norm", implementation, x, weight, bias, **settings)


def layer_norm_backward(g, x, weight, mean, rstd, *, needs=(True, True, True), implementation="auto"):
    """The gradients of `layer_norm` for x, weight and bias, from `g`, the one that arrives at y.

    With n = (x - mean) rstd and h = g weight:  dx = rstd (h - mean(h) - n mean(h n)), dweight = sum g n, dbias = sum g,
    the means over the last axis and the sums over all others.

    `g` and `x` (..., C), `weight` (C,) or None, `mean` and `rstd` (...) as the forward pass returned them; `g` has y's
    dtype. Returns (dx, dweight, dbias) of x's, with None for those that `needs` says are not needed.

    >>> y, mean, rstd = layer_norm(np.array([[1.0, 3.0]]), None, None, eps=0.0)
    >>> layer_norm_backward(np.array([[1.0, 0.0]]), np.array([[1.0, 3.0]]), None, mean, rstd, needs=(False, True, True))
    (None, array([-1.,  0.]), array([1., 0.]))
    """
    checks.has_columns("x", x)
    checks.matches_or_narrower("g", g, x.shape, x.dtype)
    if weight is not None:
        checks.matches("weight", weight, x.shape[-1:], x.dtype)
    checks.matches("mean", mean, x.shape[:-1], x.dtype)
    checks.matches("rstd", rstd, x.shape[:-1], x.dtype)
    return registry.call("layer_norm_backward", implementation, x, g, weight, mean, rstd, needs=tuple(needs))
