"""The specification of global_norm, in plain array code."""

from __future__ import annotations

import numpy as np

from ..registry import array_module, register


@register("global_norm", name="reference")
def global_norm(arrays):
    xp = array_module(arrays[0])
    with np.errstate(over="ignore"):
        squares = xp.stack([xp.square(array.astype(xp.float64)).sum() for array in arrays])
    return float(xp.sqrt(squares.sum()))
