"""The modifier of scores that is built in: soft cap, then bias, then ALiBi, one row of a tile at a time.

    score <- cap tanh(score / cap) + bias[b, h, t, s] - slope[b, h] |position[t] - s|

A modifier is a pair of compiled functions that the attention kernels call by address for each row of each tile, and a
table that says where its arrays lie. `modify` changes scores, which come and go in units of ln 2; `modify_gradient`
turns the loss's gradient for what `modify` returned into that for what it was given.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..jit import jit
from ..launch import address_of
from ..vector_math import tanh
from .contract import TABLE
from .tables import GRADIENT_TYPES, MODIFY_TYPES, floats_at, forwards, ints_at, strided
from .tiles import LN_2, LOG2_E, ONE

__all__ = ["standard_modifier"]

# Where things stand in the table; an address of zero says that there is none.
_CAP, _BIAS, _D_BIAS, _SLOPES, _POSITIONS = 0, 1, 6, 11, 16  # an address and, from _BIAS on, the steps of its axes


@cache
def _addresses() -> tuple[int, int]:
    return address_of(modify, MODIFY_TYPES), address_of(modify_gradient, GRADIENT_TYPES)


def standard_modifier(shape, position, soft_cap, bias, alibi_slopes, d_bias=None):
    """((address, gradient's address), table, what must stay alive) for scores of `shape` (B, H, T, S).

    `d_bias`, of the bias's shape, is added to by `modify_gradient`; None: no gradient of the bias is wanted.
    """
    B, H, T, _ = shape
    table = np.zeros(TABLE, np.int64)
    cap = np.array([soft_cap or 0.0], np.float32)
    table[_CAP] = cap.ctypes.data if soft_cap else 0
    if bias is not None:
        bias = forwards(bias)
        table[_BIAS : _BIAS + 5] = strided(bias, shape)
    if d_bias is not None:
        table[_D_BIAS : _D_BIAS + 5] = strided(d_bias, shape)
    if alibi_slopes is not None:
        alibi_slopes = forwards(alibi_slopes)
        table[_SLOPES : _SLOPES + 3] = strided(alibi_slopes, (B, H))
        table[_POSITIONS : _POSITIONS + 3] = strided(position, (B, T))
    return _addresses(), table, (cap, bias, d_bias, alibi_slopes, position)


@jit
def modify(scratch, offset, width, b, h, t, j, masked, table):
    row = scratch[offset : offset + width]
    if table[_CAP] != 0:
        cap = floats_at(table[_CAP], 0, 1)[0]
        inner, outer = LN_2 / cap, cap * LOG2_E
        for c in range(width):
            row[c] = outer * tanh(row[c] * inner)
    if table[_BIAS] != 0:
        first = _place(table, _BIAS, b, h, t, j)
        step = table[_BIAS + 4]
        bias = floats_at(table[_BIAS], first, (width - 1) * step + 1)
        if step == 1:
            for c in range(width):
                row[c] += bias[c] * LOG2_E
        else:
            for c in range(width):
                row[c] += bias[c * step] * LOG2_E
    if table[_SLOPES] != 0:
        slope = floats_at(table[_SLOPES], b * table[_SLOPES + 1] + h * table[_SLOPES + 2], 1)[0] * LOG2_E
        position = ints_at(table[_POSITIONS], b * table[_POSITIONS + 1] + t * table[_POSITIONS + 2], 1)[0]
        distance = np.int32(position - j)
        for c in range(width):
            row[c] -= slope * np.float32(abs(distance - np.int32(c)))


@jit
def modify_gradient(scratch, score, gradient, width, b, h, t, j, table):
    row = scratch[gradient : gradient + width]
    if table[_D_BIAS] != 0:
        first = _place(table, _D_BIAS, b, h, t, j)
        step = table[_D_BIAS + 4]
        d_bias = floats_at(table[_D_BIAS], first, (width - 1) * step + 1)
        if step == 1:
            for c in range(width):
                d_bias[c] += row[c]
        else:
            for c in range(width):
                d_bias[c * step] += row[c]
    if table[_CAP] != 0:
        inner = LN_2 / floats_at(table[_CAP], 0, 1)[0]
        scores = scratch[score : score + width]
        for c in range(width):
            slope = tanh(scores[c] * inner)
            row[c] *= ONE - slope * slope


@jit(inline=True)
def _place(table, start, b, h, t, j):
    """How many elements after its first one an array has element (b, h, t, j)."""
    return b * table[start + 1] + h * table[start + 2] + t * table[start + 3] + j * table[start + 4]
