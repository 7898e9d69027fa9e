"""adamw for CUDA: one launch for all arrays, each number read and written once.

In a recorded CUDA graph the numbers that differ from step to step lie on the card (`step_on_card`), where a launch of
one thread makes the formula's scalars of them.
"""

from __future__ import annotations

from ..cuda.launching import DTYPES
from ..cuda.step import by_value, on_card, prepared
from ..registry import register
from .scalars import step_scalars

__all__ = ["step_on_card"]


@register("adamw", name="cuda", device="cuda", dtypes=DTYPES)
def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, decoupled, grad_scale):
    table, compiled = prepared(__file__, "adamw.cu", params, grads, exp_avgs, exp_avg_sqs)
    fixed = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
    scalars = by_value(step_scalars(lr=lr, step=step, grad_scale=grad_scale, **fixed))
    compiled.kernel("adamw")(table.chunks, 256, (*table.arguments, *scalars))


def step_on_card(*lists, lr, step, grad_scale, betas, eps, weight_decay, decoupled) -> None:
    """`minilm_kernels.adamw` with float64 arrays without axes, on the card, for `lr`, `step` and `grad_scale`.

    Nothing is changed where `grad_scale` is NaN.
    """
    table, compiled = prepared(__file__, "adamw.cu", *lists)
    fixed = *betas, eps, weight_decay, decoupled
    scalars = on_card(compiled.kernel("adamw_scalars"), 9, lr, step, grad_scale, *fixed)
    compiled.kernel("adamw")(table.chunks, 256, (*table.arguments, *scalars))
