"""The optimiser's step where no number of it is known to the host: norm, clipping, AdamW, for a recorded CUDA graph.

Norms, learning rates and the like are float64 arrays without axes, read when the kernels run. With NumPy's arrays they
are the host's, and the operations of the same names are called with them.
"""

from __future__ import annotations

import numpy as np

from . import adamw as operation
from . import global_norm
from .registry import array_module

__all__ = ["adamw", "clip_coefficient", "norm", "together"]


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


def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, step, grad_scale, **fixed) -> None:
    """`minilm_kernels.adamw`, with numbers that are float64 arrays; where `grad_scale` is NaN it changes nothing."""
    if array_module(params[0]) is not np:
        from .adamw.cuda import step_on_card

        step_on_card(params, grads, exp_avgs, exp_avg_sqs, lr=lr, step=step, grad_scale=grad_scale, **fixed)
    elif not np.isnan(grad_scale):
        numbers = {"lr": float(lr), "step": int(step), "grad_scale": float(grad_scale)}
        operation(params, grads, exp_avgs, exp_avg_sqs, **numbers, **fixed)
