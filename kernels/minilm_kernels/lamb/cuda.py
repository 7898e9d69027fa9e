"""lamb for CUDA: two launches for all arrays, and one more in between for their norms.

In a recorded CUDA graph the numbers that differ from step to step lie on the card (`step_on_card`), where a launch of
one thread makes the formula's scalars of them.
"""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES
from ..cuda.step import by_value, on_card, prepared
from ..registry import array_module, register
from .scalars import step_scalars

__all__ = ["step_on_card"]


@register("lamb", name="cuda", device="cuda", dtypes=DTYPES)
def lamb(
    params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, adapt, max_weight_norm, grad_scale
):
    table, compiled = prepared(__file__, "lamb.cu", params, grads, exp_avgs, exp_avg_sqs)
    fixed = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
    scalars = by_value(step_scalars(lr=lr, step=step, grad_scale=grad_scale, **fixed))
    _launch(table, compiled, scalars, adapt, max_weight_norm)


def step_on_card(*lists, lr, step, grad_scale, betas, eps, weight_decay, adapt, max_weight_norm) -> None:
    """`minilm_kernels.lamb` with float64 arrays without axes, on the card, for `lr`, `step` and `grad_scale`.

    Nothing is changed where `grad_scale` is NaN.
    """
    table, compiled = prepared(__file__, "lamb.cu", *lists)
    scalars = on_card(compiled.kernel("lamb_scalars"), 10, lr, step, grad_scale, *betas, eps, weight_decay)
    _launch(table, compiled, scalars, adapt, max_weight_norm)


def _launch(table, compiled, scalars: tuple, adapt: bool, max_weight_norm: float | None) -> None:
    squares = ratios = None
    if adapt:
        xp = array_module(table.addresses)
        squares, ratios = xp.empty((table.chunks, 2), np.float64), xp.empty(len(table.sizes), np.float32)
    compiled.kernel("lamb_means")(table.chunks, 256, (*table.arguments, squares, *scalars))
    if adapt:
        largest = np.float64(np.inf if max_weight_norm is None else max_weight_norm)
        compiled.kernel("lamb_ratios")(len(ratios), 256, (table.first_chunk, squares, largest, ratios))
    compiled.kernel("lamb_move")(table.chunks, 256, (*table.arguments, ratios, *scalars))
