"""The optimiser's step where no number of it is known to the host: norm, clipping, AdamW, for a recorded CUDA graph.

`lr`, `step` and `grad_scale` are arrays without axes, read when the kernels run. Array code that runs on NumPy as well,
which is how it is tested; on CuPy each parameter's update is one kernel.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .registry import array_module

__all__ = ["adamw", "clip_coefficient", "norm", "together"]


def norm(arrays):
    """The length of all arrays taken as one vector, float64 without axes; NaN or infinite if an element is."""
    xp = array_module(arrays[0])
    if xp is np:
        return np.sqrt(np.stack([np.square(x, dtype=np.float64).sum() for x in arrays]).sum())[()]
    return xp.sqrt(together([_squares()(x) for x in arrays], np.float64).sum())


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


def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, step, grad_scale, betas, eps, weight_decay, decoupled) -> None:
    """`minilm_kernels.adamw`, with numbers that are float64 arrays; where `grad_scale` is NaN it changes nothing."""
    xp, dtype = array_module(params[0]), params[0].dtype
    beta1, beta2 = betas
    decay = lr * weight_decay if decoupled else xp.full_like(lr, weight_decay)
    numbers = lr / (1 - beta1**step), 1 / xp.sqrt(1 - beta2**step), decay, grad_scale
    numbers = together(numbers, dtype)
    update = _by_numpy if xp is np else _by_cupy()
    fixed = dtype.type(1 - beta1), dtype.type(beta2), dtype.type(1 - beta2), dtype.type(eps)
    for arrays in zip(params, grads, exp_avgs, exp_avg_sqs):
        update(*arrays, numbers, *fixed, decoupled)


def _by_numpy(p, g, m, v, numbers, rest1, beta2, rest2, eps, decoupled) -> None:
    step_size, root_correction, decay, grad_scale = numbers
    if np.isnan(grad_scale):
        return
    g = g * grad_scale
    if decoupled:
        p *= 1 - decay
    else:
        g = g + decay * p
    m += rest1 * (g - m)
    v *= beta2
    v += rest2 * g * g
    p -= step_size * m / (np.sqrt(v) * root_correction + eps)


@cache
def _by_cupy():
    import cupy

    kernel = cupy.ElementwiseKernel(
        "T g, raw T numbers, T rest1, T beta2, T rest2, T eps, bool decoupled",
        "T p, T m, T v",
        """
        if (!isnan(numbers[3])) {
            T scaled = g * numbers[3];
            if (decoupled) p *= 1 - numbers[2]; else scaled += numbers[2] * p;
            m += rest1 * (scaled - m);
            v = beta2 * v + rest2 * scaled * scaled;
            p -= numbers[0] * m / (sqrt(v) * numbers[1] + eps);
        }
        """,
        "adamw_by_device_numbers",
    )
    return lambda p, g, m, v, numbers, *fixed: kernel(g, numbers, *fixed, p, m, v)


@cache
def _squares():
    import cupy

    return cupy.ReductionKernel("T x", "float64 y", "(double)x * (double)x", "a + b", "y = a", "0", "sum_of_squares")
