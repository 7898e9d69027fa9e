"""The elementwise functions for the CPU: one vectorised pass each, in one kernel that chooses the loop."""

from __future__ import annotations

import numpy as np

from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..vector_math import erf, exp, log, logistic, tanh
from . import FUNCTIONS

_NUMBERS = {name: np.int64(number) for number, name in enumerate(FUNCTIONS)}
_ERF, _EXP, _LOG, _RELU, _SIGMOID, _SILU = (
    int(_NUMBERS[name]) for name in ("erf", "exp", "log", "relu", "sigmoid", "silu")
)
_ZERO, _ONE = np.float32(0), np.float32(1)
_SPLIT = np.float32(86)
_TWO_BY_ROOT_PI = np.float32(1.1283791670955126)


@register("elementwise", name="cpu", device="cpu", dtypes=("float32",))
def elementwise(x, *, function):
    x = np.asarray(x, order="C")
    y = np.empty_like(x)
    _forward_all(parts_for(x.size), x.reshape(-1), y.reshape(-1), _NUMBERS[function])
    return y


@register("elementwise_backward", name="cpu", device="cpu", dtypes=("float32",))
def elementwise_backward(g, kept, *, function):
    g, kept = np.asarray(g, order="C"), np.asarray(kept, order="C")
    dx = np.empty_like(kept)
    _backward_all(parts_for(g.size), g.reshape(-1), kept.reshape(-1), dx.reshape(-1), _NUMBERS[function])
    return dx


@jit(inline=True)
def _whole_exp(x):
    """e^x down to the smallest subnormal number: what is below -86, where `exp` ends soon, is a factor of its own."""
    below = x + _SPLIT
    return exp(-_SPLIT if x < -_SPLIT else x) * exp(_ZERO if below > _ZERO else below)


@jit(inline=True)
def _forward(x, y, function, start, stop):
    x, y = x[start:stop], y[start:stop]
    if function == _EXP:
        for i in range(y.size):
            y[i] = _whole_exp(x[i])
    elif function == _ERF:
        for i in range(y.size):
            y[i] = erf(x[i])
    elif function == _LOG:
        for i in range(y.size):
            y[i] = log(x[i])
    elif function == _RELU:
        for i in range(y.size):
            y[i] = _ZERO if x[i] < _ZERO else x[i]
    elif function == _SIGMOID:
        for i in range(y.size):
            y[i] = logistic(x[i])
    elif function == _SILU:
        for i in range(y.size):
            y[i] = x[i] * logistic(x[i])
    else:
        for i in range(y.size):
            y[i] = tanh(x[i])


@jit(inline=True)
def _backward(g, kept, dx, function, start, stop):
    g, kept, dx = g[start:stop], kept[start:stop], dx[start:stop]
    if function == _EXP:
        for i in range(dx.size):
            dx[i] = g[i] * kept[i]
    elif function == _ERF:
        for i in range(dx.size):
            dx[i] = g[i] * (_TWO_BY_ROOT_PI * exp(-kept[i] * kept[i]))
    elif function == _LOG:
        for i in range(dx.size):
            dx[i] = g[i] / kept[i]
    elif function == _RELU:
        for i in range(dx.size):
            dx[i] = g[i] if kept[i] > _ZERO else _ZERO
    elif function == _SIGMOID:
        for i in range(dx.size):
            dx[i] = g[i] * kept[i] * (_ONE - kept[i])
    elif function == _SILU:
        for i in range(dx.size):
            share = logistic(kept[i])
            dx[i] = g[i] * share * (_ONE + kept[i] * (_ONE - share))
    else:
        for i in range(dx.size):
            dx[i] = g[i] * (_ONE - kept[i] * kept[i])


@jit
def _forward_all(parts, x, y, function):
    in_parts(_forward, parts, y.size, (x, y, function))


@jit
def _backward_all(parts, g, kept, dx, function):
    in_parts(_backward, parts, dx.size, (g, kept, dx, function))
