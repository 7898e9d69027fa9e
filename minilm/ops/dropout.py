"""Dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html)."""

from __future__ import annotations

import minilm_kernels as kernels

from minilm import backend
from minilm.autograd import Array, op

__all__ = ["dropout"]


@op
def _dropout(x: Array, p, seed):
    return kernels.dropout(x, p=p, seed=seed)


@_dropout.gradient
def _(g, p, seed):
    return _dropout(g, p, seed)  # the same numbers again: no mask is kept


def dropout(x, p: float = 0.5, training: bool = True, generator: backend.Generator | None = None):
    """x with each element zeroed with probability `p` and the others divided by 1 - p; x itself when not `training`.

    The numbers come from `generator` (None: the default stream), one draw of a seed a call. Raises ValueError for a p
    outside [0, 1].

    >>> import numpy as np
    >>> sorted(set(dropout(np.ones(1000, np.float32), p=0.5).tolist()))
    [0.0, 2.0]
    >>> dropout(np.ones(2, np.float32), p=0.5, training=False).tolist()
    [1.0, 1.0]
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout's p lies between 0 and 1; got {p}")
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0
    return _dropout(x, p, (generator or backend.default_generator).seed64())
