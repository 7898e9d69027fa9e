"""Dropout with random numbers that are computed, not stored."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["dropout"]


def dropout(x, *, p, seed, offset=0, implementation="auto"):
    """Each element is 0 with probability `p` and x / (1 - p) otherwise (Srivastava et al. 2014, JMLR 15).

    Element i is dropped if word i % 4 of Philox-4x32-10 at counter (i // 4, offset) under key `seed` is below p 2^32
    (Salmon et al. 2011, doi:10.1145/2063384.2063405; it passes BigCrush). No mask is kept: the backward pass is the
    same call on the gradient. Every implementation drops the same elements.

    `x` has any shape and floating dtype, its elements counted in C order; the result has the same. `seed` and `offset`
    are integers in [0, 2^64): count `offset` up for each layer and step under one seed. ValueError for others. On a GPU
    `seed` may be a CuPy array of one uint64, without axes, for a recorded graph that is launched with other seeds.

    >>> dropout(np.ones(8), p=0.5, seed=1)
    array([2., 2., 2., 2., 2., 2., 0., 2.])
    """
    checks.is_floating("x", x)
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; expected the probability, in [0, 1], that an element is dropped")
    if not 0 <= offset < 2**64:
        raise ValueError(f"offset is {offset}; expected an integer in [0, 2**64)")
    return registry.call("dropout", implementation, x, p=p, seed=checks.seed("seed", seed), offset=int(offset))


def threshold_and_scale(p: float) -> tuple[int, float]:
    """The 32-bit number below which an element is dropped, and what is kept is multiplied by."""
    return min(round(p * 2**32), 2**32 - 1), 1 / (1 - p) if p < 1 else 0.0
