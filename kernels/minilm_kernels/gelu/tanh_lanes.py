"""GELU by tanh, sixteen numbers at a time.

(1 + tanh u) / 2 is 1 / (1 + e^-2u), which loses no digits where tanh u is near -1. LLVM vectorises a loop of it, but
loads a dozen constants anew for every eight numbers: two vectors to a turn, and powers of two, take half the time.
"""

from __future__ import annotations

import math

import numpy as np

from ..jit import jit
from ..simd import (
    LANES,
    add,
    divide,
    exp2,
    fma,
    load,
    minimum,
    multiply,
    select_less,
    splat,
    store,
    subtract,
    zeros,
)

__all__ = ["lanes_backward", "lanes_forward"]

_ONE = np.float32(1)
# 2u = x (_A + _B x^2), its derivative in x is _A + _3B x^2, and e^-2u is 2 to the power of x (_A2 + _B2 x^2).
_A = np.float32(2 * math.sqrt(2 / math.pi))
_3B = np.float32(6 * math.sqrt(2 / math.pi) * 0.044715)
_A2 = np.float32(-2 * math.sqrt(2 / math.pi) / math.log(2))
_B2 = np.float32(-2 * math.sqrt(2 / math.pi) / math.log(2) * 0.044715)
_MOST = np.float32(128)  # of which exp2 makes infinity

_STEP = 2 * LANES


@jit(inline=True)
def lanes_forward(x, bias, y):
    """y = gelu(x + bias) for vectors of any length."""
    whole = x.size // _STEP * _STEP
    for i in range(0, whole, _STEP):
        first, second = _at(x, bias, i), _at(x, bias, i + LANES)
        store(y, i, _gelu(first)), store(y, i + LANES, _gelu(second))
    if whole < x.size:
        rest = _rest(x, bias, whole)
        for i in range(0, _STEP, LANES):
            store(rest, i, _gelu(load(rest, i)))
        for i in range(whole, x.size):
            y[i] = rest[i - whole]


@jit(inline=True)
def lanes_backward(g, x, bias, dx):
    """dx = g gelu'(x + bias) for vectors of any length."""
    whole = x.size // _STEP * _STEP
    for i in range(0, whole, _STEP):
        first, second = _at(x, bias, i), _at(x, bias, i + LANES)
        store(dx, i, multiply(load(g, i), _slope(first)))
        store(dx, i + LANES, multiply(load(g, i + LANES), _slope(second)))
    if whole < x.size:
        rest = _rest(x, bias, whole)
        for i in range(0, _STEP, LANES):
            store(rest, i, _slope(load(rest, i)))
        for i in range(whole, x.size):
            dx[i] = g[i] * rest[i - whole]


@jit(inline=True)
def _at(x, bias, i):
    return add(load(x, i), load(bias, i))


@jit(inline=True)
def _rest(x, bias, start):
    """x[start:], less than _STEP long, in an array of that length, the bias added."""
    rest = np.zeros(_STEP, np.float32)
    for i in range(start, x.size):
        rest[i - start] = x[i] + bias[i]
    return rest


@jit(inline=True)
def _gelu(x):
    power = multiply(x, fma(splat(_B2), multiply(x, x), splat(_A2)))
    return divide(x, add(splat(_ONE), exp2(select_less(splat(_MOST), power, splat(_MOST), power))))


@jit(inline=True)
def _slope(x):
    square = multiply(x, x)
    power = multiply(x, fma(splat(_B2), square, splat(_A2)))
    small = exp2(minimum(power, subtract(zeros(), power)))  # of what can't overflow
    large = divide(splat(_ONE), add(splat(_ONE), small))
    other = multiply(small, large)
    share = select_less(zeros(), power, other, large)
    return fma(multiply(x, multiply(other, large)), fma(splat(_3B), square, splat(_A)), share)
