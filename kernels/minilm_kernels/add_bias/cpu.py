"""add_bias for the CPU: NumPy adds on one core, and a step of a small model has fifty products with a bias."""

from __future__ import annotations

import numpy as np

from ..jit import jit
from ..launch import in_parts
from ..registry import register

# Numbers below which NumPy has added them before a second thread would have begun.
SERIAL_BELOW = 16384
PARTS = 16


def _limits(x, bias):
    if x.size < SERIAL_BELOW:
        return f"it is for {SERIAL_BELOW} numbers and more, and x has {x.size}"
    return None if x.flags.c_contiguous else "it takes C-contiguous rows"


@register("add_bias", name="cpu", device="cpu", dtypes=("float32", "float64"), limits=_limits)
def add_bias(x, bias):
    _add_all(x, np.ascontiguousarray(bias))
    return x


@jit(inline=True)
def _add(x, bias, start, stop):
    for row in range(start, stop):
        xs = x[row]
        for i in range(xs.size):
            xs[i] += bias[i]


@jit
def _add_all(x, bias):
    in_parts(_add, PARTS, len(x), (x, bias))
