"""Rotary position embedding and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["rotary", "rotary_backward"]


def rotary(x, cos, sin, *, interleaved=False, implementation="auto"):
    """Each pair of features turned by an angle that grows with the position (Su et al. 2021, arXiv:2104.09864).

    (a, b) -> (a cos - b sin, b cos + a sin). Pair i of the first R features is (i, i + R/2), the two halves rotated
    against each other as in GPT-NeoX and LLaMA, or if `interleaved` (2i, 2i + 1), as in the paper and GPT-J. The other
    D - R features stay as they are.

    `x` (B, H, T, D) of any floating dtype and layout: a view of (B, T, H, D) is not copied, and the result lies in
    memory as x does. `cos` and `sin` (T, R/2) or (B, T, R/2) of x's dtype, or float32 where x has 16 bits: it is turned
    in float32 then, and rounded once. Returns an array like x. ValueError or TypeError for others.

    >>> x = np.array([1.0, 0.0, 5.0]).reshape(1, 1, 1, 3)
    >>> rotary(x, np.array([[0.0]]), np.array([[1.0]]))
    array([[[[0., 1., 5.]]]])
    """
    cos, sin = _tables("x", x, cos, sin)
    return registry.call("rotary", implementation, x, cos, sin, interleaved=bool(interleaved))


def rotary_backward(g, cos, sin, *, interleaved=False, implementation="auto"):
    """The gradient of `rotary` for x from `g`, the one that arrives: g turned back, by the angles' negatives.

    The arguments are like `rotary`'s, and so is the result. (The tables `cos` and `sin` get no gradient.)

    >>> g = np.array([0.0, 1.0, 5.0]).reshape(1, 1, 1, 3)
    >>> rotary_backward(g, np.array([[0.0]]), np.array([[1.0]]))
    array([[[[1., 0., 5.]]]])
    """
    cos, sin = _tables("g", g, cos, sin)
    return registry.call("rotary_backward", implementation, g, cos, sin, interleaved=bool(interleaved))


def _tables(name, x, cos, sin):
    """The tables as implementations take them, float32 at least; ValueError or TypeError for what does not fit x."""
    checks.is_floating(name, x)
    if x.ndim != 4:
        raise ValueError(f"{name} has shape {x.shape}; expected (B, H, T, D): reshape it")
    B, _, T, D = x.shape
    checks.is_floating("cos", cos)
    if cos.shape[:-1] not in ((T,), (B, T)) or 2 * cos.shape[-1] > D:
        raise ValueError(
            f"cos has shape {cos.shape}; expected ({T}, R/2) or ({B}, {T}, R/2) with R of at most {D}, "
            f"as {name} has shape {x.shape}"
        )
    wide = checks.wide(x)
    if cos.dtype != wide:
        checks.matches("cos", cos, cos.shape, x.dtype)
    checks.matches("sin", sin, cos.shape, cos.dtype)
    return cos.astype(wide, copy=False), sin.astype(wide, copy=False)
