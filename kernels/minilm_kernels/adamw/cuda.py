"""adamw for CUDA: one launch for all arrays, each number read and written once.

`update` is that launch with its scalars from wherever they are: a step that is captured as a CUDA graph keeps them in
an array on the card and writes other ones before each replay.
"""

from __future__ import annotations

import numpy as np

from ..cuda.array_table import CHUNK, ArrayTable
from ..cuda.launching import DTYPES, program
from ..registry import array_module, register
from .scalars import step_scalars

__all__ = ["scalars", "update"]


@register("adamw", name="cuda", device="cuda", dtypes=DTYPES)
def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, decoupled, grad_scale):
    settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": step}
    values = scalars(**settings, decoupled=decoupled, grad_scale=grad_scale)
    update(params, grads, exp_avgs, exp_avg_sqs, values)


def scalars(**settings) -> tuple:
    """`step_scalars` in float32, as the kernel takes them."""
    return tuple([np.float32(value) for value in step_scalars(**settings)])


def update(params, grads, exp_avgs, exp_avg_sqs, values) -> None:
    """A step over lists of contiguous arrays of one dtype.

    `values` are `scalars(...)`, or the same as an array (9,) of float32 on the arrays' card.
    """
    xp = array_module(params[0])
    table = ArrayTable.of(xp, params, grads, exp_avgs, exp_avg_sqs)
    kernel = program(__file__, "adamw.cu", params[0].dtype, PACKED=int(table.packed)).kernel("adamw")
    given, numbers = (None, values) if isinstance(values, tuple) else (values, (np.float32(0),) * 9)
    tables = table.addresses, table.sizes, table.owner, table.first
    kernel(table.chunks, 256, (*tables, np.int32(len(params)), np.int32(CHUNK), given, *numbers))
