"""The numbers of an optimiser's step on their way to its kernels (step.cuh)."""

from __future__ import annotations

import numpy as np

from ..registry import array_module
from .array_table import ArrayTable
from .launching import program
from .program import Program

__all__ = ["by_value", "on_card", "prepared"]


def prepared(beside: str, source: str, params, grads, exp_avgs, exp_avg_sqs) -> tuple[ArrayTable, Program]:
    """The table of the lists, the gradients last in it, and the program of the source for such arrays."""
    table = ArrayTable.of(array_module(params[0]), params, exp_avgs, exp_avg_sqs, grads)
    return table, program(beside, source, params[0].dtype, PACKED=int(table.packed))


def by_value(scalars: tuple[float, ...]) -> tuple:
    """Numbers of the host as a kernel's last two arguments, `given` and `values`."""
    values = np.array(scalars, np.float32)
    return None, values.view(np.dtype((np.void, values.nbytes)))[0]


def on_card(kernel, count: int, lr, step, grad_scale, *fixed) -> tuple:
    """The same two, of `count` numbers that `kernel` makes of three float64 arrays without axes and fixed numbers."""
    given = array_module(lr).empty(count, np.float32)
    fixed = [np.bool_(number) if isinstance(number, bool) else np.float64(number) for number in fixed]
    kernel(1, 1, (lr, step, grad_scale, *fixed, given))
    return given, by_value((0.0,) * count)[1]
