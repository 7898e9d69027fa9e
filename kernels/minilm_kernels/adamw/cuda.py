"""adamw for CUDA: one launch for all arrays, each number read and written once.

In a recorded CUDA graph the numbers that differ from step to step lie on the card (`step_on_card`), where a launch of
one thread makes the formula's scalars of them.
"""

from __future__ import annotations

import numpy as np

from ..cuda.array_table import CHUNK, ArrayTable
from ..cuda.launching import DTYPES, program
from ..cuda.program import Program
from ..registry import array_module, register
from .scalars import step_scalars

__all__ = ["step_on_card"]


@register("adamw", name="cuda", device="cuda", dtypes=DTYPES)
def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, decoupled, grad_scale):
    settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": step}
    values = step_scalars(**settings, decoupled=decoupled, grad_scale=grad_scale)
    _update((params, grads, exp_avgs, exp_avg_sqs), None, tuple([np.float32(value) for value in values]))


def step_on_card(
    params, grads, exp_avgs, exp_avg_sqs, *, lr, step, grad_scale, betas, eps, weight_decay, decoupled
) -> None:
    """`minilm_kernels.adamw` with float64 arrays without axes, on the card, for `lr`, `step` and `grad_scale`.

    Nothing is changed where `grad_scale` is NaN.
    """
    lists = params, grads, exp_avgs, exp_avg_sqs
    given = array_module(params[0]).empty(9, np.float32)
    fixed = [np.float64(number) for number in (*betas, eps, weight_decay)]
    _compiled(lists).kernel("adamw_scalars")(1, 1, (lr, step, grad_scale, *fixed, np.bool_(decoupled), given))
    _update(lists, given, (np.float32(0),) * 9)


def _update(lists, given, numbers) -> None:
    """The launch over lists of contiguous arrays of one dtype, with the scalars `given` on the card, or the numbers."""
    table = _table(lists)
    tables = table.addresses, table.sizes, table.owner, table.first
    settings = np.int32(len(lists[0])), np.int32(CHUNK), given, *numbers
    _compiled(lists).kernel("adamw")(table.chunks, 256, (*tables, *settings))


def _table(lists) -> ArrayTable:
    return ArrayTable.of(array_module(lists[0][0]), *lists)


def _compiled(lists) -> Program:
    return program(__file__, "adamw.cu", lists[0][0].dtype, PACKED=int(_table(lists).packed))
