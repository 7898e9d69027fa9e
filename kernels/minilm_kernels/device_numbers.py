"""The optimiser's step where no number of it is known to the host: norm, clipping, update, for a recorded CUDA graph.

Norms, learning rates and the like are float64 arrays without axes, read when the kernels run. With NumPy's arrays they
are the host's, and the operations of the same names are called with them.
"""

from __future__ import annotations

import numpy as np

from . import adamw as adamw_operation
from . import global_norm
from . import lamb as lamb_operation
from .registry import array_module

__all__ = ["adamw", "clip_coefficient", "lamb", "norm", "together"]


def norm(arrays):
    """The length of all arrays taken as one vector, float64 without axes; NaN or infinite if an element is."""
    if array_module(arrays[0]) is np:
        return np.float64(global_norm(arrays))
    from .global_norm.cuda import norm_on_card

    return norm_on_card(arrays)


def together(numbers, dtype):
    """Arrays without axes as one array (n,). (CuPy's `stack` may send a table of addresses: that can't be recorded.)"""
    whole = array_module(numbers[0]).empty(len(numbers), dtype)
    for place, number in enumerate(numbers):
        whole[place] = number
    return whole


def clip_coefficient(length, max_norm: float):
    """min(1, max_norm / (length + 1e-6)), or 1 where `max_norm` is 0; NaN where `length` is not finite."""
    xp = array_module(length)
    clipped = xp.minimum(1.0, max_norm / (length + 1e-6)) if max_norm else xp.ones_like(length)
    return xp.where(xp.isfinite(length), clipped, xp.nan)


def adamw(*lists, **settings) -> None:
    """`minilm_kernels.adamw`, with numbers that are float64 arrays; where `grad_scale` is NaN it changes nothing."""
    if array_module(lists[0][0]) is np:
        _on_host(adamw_operation, lists, **settings)
    else:
        from .adamw.cuda import step_on_card

        step_on_card(*lists, **settings)


def lamb(*lists, **settings) -> None:
    """`minilm_kernels.lamb`, with numbers that are float64 arrays; where `grad_scale` is NaN it changes nothing."""
    if array_module(lists[0][0]) is np:
        _on_host(lamb_operation, lists, **settings)
    else:
        from .lamb.cuda import step_on_card

        step_on_card(*lists, **settings)


def _on_host(operation, lists: tuple, *, lr, step, grad_scale, **fixed) -> None:
    if not np.isnan(grad_scale):
        operation(*lists, lr=float(lr), step=int(step), grad_scale=float(grad_scale), **fixed)
