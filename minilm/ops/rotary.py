"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

from __future__ import annotations

import minilm_kernels as kernels
import numpy as np

from minilm import backend
from minilm.autograd import Array, Tensor, op

__all__ = ["rotary_embedding", "rotary_tables"]


@op
def rotary_embedding(x: Array, cos, sin, interleaved=False):
    """Each pair of x's features turned by the angle of its position: (a cos - b sin, b cos + a sin).

    x (B, H, T, D), also a view as `split_heads` makes it; cos and sin (T, R/2) or (B, T, R/2), as from
    `rotary_tables`, of x's dtype or, where that has 16 bits, float32. Pair i of the first R features is (i, i + R/2),
    as in LLaMA, or if `interleaved` (2i, 2i + 1), as in GPT-J; the others stay as they are. The tables get no gradient.

    >>> import numpy as np
    >>> cos, sin = rotary_tables(2, 4)
    >>> rotary_embedding(np.ones((1, 1, 2, 4), np.float32), cos, sin).round(2)
    array([[[[ 1.  ,  1.  ,  1.  ,  1.  ],
             [-0.3 ,  0.99,  1.38,  1.01]]]], dtype=float32)
    """
    return kernels.rotary(x, cos, sin, interleaved=interleaved)


@rotary_embedding.gradient
def _(g, cos, sin, interleaved):
    if isinstance(g, Tensor):
        return rotary_embedding(g, cos, -sin, interleaved)
    return kernels.rotary_backward(g, cos, sin, interleaved=interleaved)


def rotary_tables(
    length: int | None = None,
    dim: int | None = None,
    *,
    base: float = 10000.0,
    offset: int = 0,
    positions=None,
    dtype="float32",
):
    """cos and sin (T, dim/2) of the angles p base^(-2i/dim), for positions p = offset ... offset + length - 1.

    `dim` is the even number of features that are rotated. `positions`, integers (T,) or (B, T) instead of `length`
    and `offset`, gives each row its own, for padded or packed sequences. Angles are computed in float64 and the tables
    rounded once, to `dtype`: no digits are lost at position 100,000. ValueError for an odd `dim`, or for both or
    neither of `length` and `positions`.

    >>> cos, sin = rotary_tables(3, 4, offset=1)
    >>> cos.shape, sin[:, 0].round(4)
    ((3, 2), array([0.8415, 0.9093, 0.1411], dtype=float32))
    """
    if dim is None or dim < 0 or dim % 2:
        raise ValueError(f"dim is {dim}; expected an even number of features, 0 or more")
    if (length is None) == (positions is None):
        raise ValueError("rotary_tables takes a length (and an offset) or positions; give one of them")
    if positions is None:
        positions = np.arange(offset, offset + length)
    elif offset:
        raise ValueError(f"offset is {offset}; it goes with a length: add it to the positions")
    positions = getattr(positions, "_data", positions)
    xp = backend.array_module(positions)
    frequencies = base ** -(xp.arange(0, dim, 2, dtype=xp.float64) / max(dim, 1))
    angles = xp.asarray(positions, xp.float64)[..., None] * frequencies
    return xp.cos(angles).astype(dtype), xp.sin(angles).astype(dtype)
