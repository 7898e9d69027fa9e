"""adamw for CUDA: one launch for all arrays, each number read and written once.

`update` is that launch with its scalars from wherever they are: a step that is captured as a CUDA graph keeps them in
an array on the card and writes other ones before each replay.
"""

from __future__ import annotations

import numpy as np

from ..cuda.array_table import CHUNK, ArrayTable
from ..cuda.launching import DTYPES, program
from ..registry import array_module, register

__all__ = ["scalars", "update"]


@register("adamw", name="cuda", device="cuda", dtypes=DTYPES)
def adamw(params, grads, exp_avgs, exp_avg_sqs, *, lr, betas, eps, weight_decay, step, decoupled, grad_scale):
    settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": step}
    values = scalars(**settings, decoupled=decoupled, grad_scale=grad_scale)
    update(params, grads, exp_avgs, exp_avg_sqs, values)


def scalars(*, lr, betas, eps, weight_decay, step, decoupled, grad_scale) -> tuple:
    """What a step's formula takes of the settings of `adamw`: nine numbers of float32, in the kernel's order.

    >>> [float(x) for x in scalars(
    ...     lr=0.5, betas=(0.5, 0.75), eps=0.25, weight_decay=1.0, step=1, decoupled=True, grad_scale=1.0)]
    [1.0, 0.5, 0.0, 0.5, 0.75, 0.25, 1.0, 2.0, 0.25]
    """
    beta1, beta2 = betas
    values = (
        grad_scale,
        1 - lr * weight_decay if decoupled else 1.0,
        0.0 if decoupled else weight_decay,
        1 - beta1,
        beta2,
        1 - beta2,
        lr / (1 - beta1**step),
        1 / (1 - beta2**step) ** 0.5,
        eps,
    )
    return tuple([np.float32(value) for value in values])


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
