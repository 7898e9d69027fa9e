"""layer_norm for CUDA, and what all norms share there: they are one source, norm.cu."""

from __future__ import annotations

import numpy as np

from ..column_sums.cuda import add_strips
from ..cuda.launching import DTYPES, contiguous, pack_width, program, row_threads
from ..cuda.program import device_properties, scalar_name
from ..registry import array_module, register

__all__ = ["norm_backward", "norm_forward", "too_wide"]

# Columns whose two sums fit the shared memory that every card from sm_80 on has.
WIDEST = 12288


def norm_forward(x, residual, weight, bias, eps, dtype, *, centered: bool):
    """(y, total, mean, rstd) of the sum of x and residual, or of x alone; what does not apply is None.

    y has `dtype`, or x's if that is None.
    """
    xp = array_module(x)
    shape, columns = x.shape, x.shape[-1]
    x, residual, weight, bias = contiguous(xp, x, residual, weight, bias)
    y, rstd = xp.empty(shape, x.dtype if dtype is None else dtype), xp.empty(shape[:-1], x.dtype)
    total = None if residual is None else xp.empty(shape, x.dtype)
    mean = xp.empty(shape[:-1], x.dtype) if centered else None
    width = pack_width(columns, x, residual, weight, bias, y, total)
    kernel = _program(x.dtype, y.dtype, width, centered).kernel("norm_forward")
    arrays = x, residual, weight, bias, y, total, mean, rstd
    kernel(rstd.size, row_threads(columns // width), (*arrays, np.int32(columns), np.float32(eps)))
    return y, total, mean, rstd


def norm_backward(g, g_total, x, weight, mean, rstd, needs, *, centered: bool):
    """(dx, dweight, dbias), None where not needed; `g_total` is added to dx."""
    xp = array_module(x)
    columns, rows = x.shape[-1], rstd.size
    g, g_total, x, weight, mean, rstd = contiguous(xp, g, g_total, x, weight, mean, rstd)
    if rows == 0:
        return tuple([xp.zeros(shape, x.dtype) if need else None for need, shape in _results(x, needs)])
    # As many strips of rows as keep the card busy: each ends in one more row to be summed.
    strips = min(rows, 4 * device_properties().multiprocessors)
    dx = xp.empty(x.shape, x.dtype) if needs[0] else None
    sums = [xp.empty((strips, columns), np.float32) if need else None for need in needs[1:]]
    width = pack_width(columns, x, g, g_total, weight, dx)
    threads = row_threads(columns // width)
    padded = -(-columns // (threads * width)) * threads * width
    kernel = _program(x.dtype, g.dtype, width, centered).kernel("norm_backward")
    arguments = g, g_total, x, weight, mean, rstd, dx, *sums, np.int32(rows), np.int32(columns)
    kernel(strips, threads, arguments, shared_bytes=4 * padded * sum(map(bool, needs[1:])))
    return dx, *[None if part is None else add_strips(part, x.dtype) for part in sums]


def _results(x, needs):
    return zip(needs, (x.shape, x.shape[-1:], x.shape[-1:]))


def _program(dtype, result, width, centered):
    return program(__file__, "norm.cu", dtype, RESULT=scalar_name(result), WIDTH=width, CENTERED=int(centered))


def too_wide(x, *args, **settings) -> str | None:
    """The limit of the backward passes."""
    if x.shape[-1] > WIDEST:
        return f"its sums fit shared memory up to {WIDEST} columns, and x has {x.shape[-1]}"
    return None


@register("layer_norm", name="cuda", device="cuda", dtypes=DTYPES)
def layer_norm(x, weight, bias, *, eps, dtype=None):
    y, _, mean, rstd = norm_forward(x, None, weight, bias, eps, dtype, centered=True)
    return y, mean, rstd


@register("layer_norm_backward", name="cuda", device="cuda", dtypes=DTYPES, limits=too_wide)
def layer_norm_backward(x, g, weight, mean, rstd, *, needs):
    return norm_backward(g, None, x, weight, mean, rstd, needs, centered=True)
