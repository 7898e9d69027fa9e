"""LSTM and GRU along a sequence: a layer in one direction is one operation.

Step by step there is only what needs the step before: a product with the state and the cell. Both passes write to
arrays that are there from the start, time first, so that a step's part of them lies in one piece; the weights' gradient
is one product over all steps, at the end.
"""

from __future__ import annotations

import minilm_kernels as kernels
from minilm_kernels.checks import wide
from minilm_kernels.products import matmul_into

from minilm.autograd import Array, op
from minilm.autograd.mode import state
from minilm.backend import array_module
from minilm.backend import matmul as product

from .elementwise import astype, where
from .linalg import linear
from .recurrent import gru_cell, lstm_cell
from .shape import stack

__all__ = ["gru", "lstm"]


def lstm(sums, weight_hh, h, c, alive=None, reverse: bool = False):
    """(outputs (T, B, C), h, c): `lstm_cell` along a sequence, and the state (B, C) twice after the last token.

    sums (T, B, 4 C) over the inputs, biases included, to which h weight_hh^T is added step by step; weight_hh (4 C, C);
    h and c (B, C), the state before. With `reverse` the walk begins at the last token. `alive` (T, B), booleans on the
    arrays' device, is False for padding, which leaves the state as it is and whose outputs are zero. Raises ValueError
    for shapes that do not fit.

    >>> import numpy as np
    >>> sums, weight, zeros = np.zeros((5, 2, 12)), np.zeros((12, 3)), np.zeros((2, 3))
    >>> outputs, h, c = lstm(sums, weight, zeros, zeros)
    >>> outputs.shape, h.shape, c.shape
    ((5, 2, 3), (2, 3), (2, 3))
    """
    _check("lstm", 4, sums, weight_hh, {"h": h, "c": c}, alive)
    if state.autocast is not None:  # products in its dtype, the cells in float32
        (weight_hh,), (h, c) = state.autocast.inputs("low", (weight_hh,)), state.autocast.inputs("float32", (h, c))
    return _lstm(sums, weight_hh, h, c, alive, reverse)


def gru(sums, weight_hh, bias_hh, h, alive=None, reverse: bool = False):
    """(outputs (T, B, C), h): `gru_cell` along a sequence, and the state (B, C) after the last token.

    sums (T, B, 3 C) over the inputs; weight_hh (3 C, C) and bias_hh (3 C,), or None, make the sums over the state h
    (B, C), which stay apart: the reset gate weighs a third of them. `alive` and `reverse` are `lstm`'s. Raises
    ValueError for shapes that do not fit.

    >>> import numpy as np
    >>> outputs, h = gru(np.zeros((5, 2, 9)), np.zeros((9, 3)), None, np.ones((2, 3)))
    >>> outputs[:, 0, 0].tolist()  # each gate is 1/2, the candidate 0
    [0.5, 0.25, 0.125, 0.0625, 0.03125]
    """
    _check("gru", 3, sums, weight_hh, {"h": h}, alive)
    if state.autocast is not None:
        weight_hh, bias_hh = state.autocast.inputs("low", (weight_hh, bias_hh))
        (h,) = state.autocast.inputs("float32", (h,))
    return _gru(sums, weight_hh, bias_hh, h, alive, reverse)


def _check(name: str, gates: int, sums, weight_hh, states: dict, alive) -> None:
    C = weight_hh.shape[-1]
    expected = tuple(weight_hh.shape) == (gates * C, C) and sums.ndim == 3 and sums.shape[2] == gates * C
    if not expected or any(tuple(part.shape) != (sums.shape[1], C) for part in states.values()):
        given = ", ".join(f"{name} {tuple(part.shape)}" for name, part in states.items())
        raise ValueError(
            f"{name} of sums {tuple(sums.shape)}, weight_hh {tuple(weight_hh.shape)}, {given}; expected (T, B, "
            f"{gates} C), ({gates} C, C) and (B, C)"
        )
    if alive is not None and tuple(alive.shape) != tuple(sums.shape[:2]):
        raise ValueError(f"alive has shape {tuple(alive.shape)}; expected {tuple(sums.shape[:2])}, one entry a token")


@op(keeps=("hs", "cs", "activated"))
def _lstm(sums: Array, weight_hh: Array, h: Array, c: Array, alive, reverse):
    dtype = wide(h)
    gates = _in_order(sums, reverse).astype(dtype, order="C")  # a copy, to which the products are added
    activated = array_module(sums).empty_like(gates)
    hs, cs, living = _states(h, gates), _states(c, gates), _columns(alive, reverse)
    for t in range(len(gates)):
        matmul_into(gates[t], hs[t].astype(weight_hh.dtype, copy=False), weight_hh.T, add=True)
        kernels.lstm_cell(gates[t], cs[t], into=(hs[t + 1], cs[t + 1], activated[t]))
        if living is not None:
            _keep_where_padded(living[t], t, hs, cs)
    last = tuple(states[-1].astype(h.dtype) for states in (hs, cs))
    return (_outputs(hs, living, reverse, h.dtype), *last), hs, cs, activated


@_lstm.gradient
def _(g, weight_hh, y, hs, cs, activated, alive, reverse, needs):  # y: an output is hs's memory, and looked after
    dgates, living = array_module(hs).empty_like(activated), _columns(alive, reverse)
    arriving, dc = _arriving(g[0], g[1], hs, living, reverse), g[2].astype(cs.dtype)
    for t in range(len(dgates))[::-1]:
        passing = None if living is None else [_taken_where_padded(living[t], x) for x in (arriving[t + 1], dc)]
        kernels.lstm_cell_backward(arriving[t + 1], dc, activated[t], cs[t], cs[t + 1], into=(dgates[t], dc))
        if passing is not None:
            arriving[t] += passing[0]
            dc += passing[1]
        matmul_into(arriving[t], dgates[t].astype(weight_hh.dtype, copy=False), weight_hh, add=True)
    dweight = _weight_gradient(dgates, hs, weight_hh.dtype) if needs[1] else None
    return _in_order(dgates, reverse), dweight, arriving[0], dc


@_lstm.composition
def _(sums, weight_hh, h, c, alive, reverse):
    def step(sums, h, c):
        gates = sums + linear(_as(h, weight_hh.dtype), weight_hh)
        return lstm_cell(_as(gates, c.dtype), c)

    return _step_by_step(step, sums, (h, c), alive, reverse)


@op(keeps=("hs", "hiddens", "activated"))
def _gru(sums: Array, weight_hh: Array, bias_hh: Array, h: Array, alive, reverse):
    dtype = wide(h)
    inputs = _in_order(sums, reverse).astype(dtype, copy=False)
    hiddens, activated = (array_module(sums).empty(sums.shape, dtype) for _ in range(2))
    hiddens[...] = 0 if bias_hh is None else bias_hh
    hs, living = _states(h, inputs), _columns(alive, reverse)
    for t in range(len(inputs)):
        matmul_into(hiddens[t], hs[t].astype(weight_hh.dtype, copy=False), weight_hh.T, add=bias_hh is not None)
        kernels.gru_cell(inputs[t], hiddens[t], hs[t], into=(hs[t + 1], activated[t]))
        if living is not None:
            _keep_where_padded(living[t], t, hs)
    return (_outputs(hs, living, reverse, h.dtype), hs[-1].astype(h.dtype)), hs, hiddens, activated


@_gru.gradient
def _(g, weight_hh, bias_hh, y, hs, hiddens, activated, alive, reverse, needs):
    xp, living = array_module(hs), _columns(alive, reverse)
    dinputs, dhiddens, direct = xp.empty_like(hiddens), xp.empty_like(hiddens), xp.empty_like(hs[0])
    arriving = _arriving(g[0], g[1], hs, living, reverse)
    for t in range(len(dinputs))[::-1]:
        if living is not None:
            arriving[t] += _taken_where_padded(living[t], arriving[t + 1])
        into = dinputs[t], dhiddens[t], direct
        kernels.gru_cell_backward(arriving[t + 1], hiddens[t], hs[t], activated[t], into=into)
        arriving[t] += direct
        matmul_into(arriving[t], dhiddens[t].astype(weight_hh.dtype, copy=False), weight_hh, add=True)
    dweight = _weight_gradient(dhiddens, hs, weight_hh.dtype) if needs[1] else None
    dbias = kernels.column_sums(_rows(dhiddens)) if needs[2] else None
    return _in_order(dinputs, reverse), dweight, dbias, arriving[0]


@_gru.composition
def _(sums, weight_hh, bias_hh, h, alive, reverse):
    def step(sums, h):
        hiddens = linear(_as(h, weight_hh.dtype), weight_hh, bias_hh)
        return (gru_cell(_as(sums, h.dtype), _as(hiddens, h.dtype), h),)

    return _step_by_step(step, sums, (h,), alive, reverse)


def _step_by_step(step, sums, states: tuple, alive, reverse: bool) -> tuple:
    """What the operations above compute: `step(sums, *states)` for one token after the other."""
    outputs = [sums[t, :, : states[0].shape[1]] for t in range(len(sums))]
    for t in range(len(sums))[:: -1 if reverse else 1]:
        following = step(sums[t], *states)
        outputs[t] = following[0]
        if alive is not None:
            living = alive[t][:, None]
            outputs[t] = where(living, following[0], 0)
            following = tuple(where(living, new, old) for new, old in zip(following, states))
        states = following
    return (stack(outputs), *states)


def _as(x, dtype):
    return x if x.dtype == dtype else astype(x, dtype)


# Raw arrays (T, B, ...), in the order of the walk. Of states there are T + 1: the first one is that before it.


def _in_order(x, reverse: bool):
    return x[::-1] if reverse else x


def _columns(alive, reverse: bool):
    """alive (T, B) as columns (T, B, 1); None stays."""
    return None if alive is None else _in_order(alive, reverse)[..., None]


def _states(first, sums):
    states = array_module(sums).empty((len(sums) + 1, *first.shape), sums.dtype)
    states[0] = first
    return states


def _keep_where_padded(living, t: int, *states) -> None:
    for x in states:
        x[t + 1] = array_module(x).where(living, x[t + 1], x[t])


def _taken_where_padded(living, x):
    """What passes the cell by, (B, C); x is zero there from now on."""
    xp = array_module(x)
    passing = xp.where(living, 0, x)
    x[...] = xp.where(living, x, 0)
    return passing


def _outputs(hs, living, reverse: bool, dtype):
    outputs = hs[1:] if living is None else array_module(hs).where(living, hs[1:], 0)
    return _in_order(outputs, reverse).astype(dtype, copy=False)


def _arriving(g, g_last, hs, living, reverse: bool):
    """The gradients that come to each state from its output and, at the last one, from what is returned of it."""
    arriving, g = array_module(hs).empty_like(hs), _in_order(g, reverse)
    arriving[0] = 0
    arriving[1:] = g if living is None else array_module(hs).where(living, g, 0)
    arriving[-1] += g_last
    return arriving


def _rows(x):
    return x.reshape((x.shape[0] * x.shape[1], x.shape[2]))


def _weight_gradient(dsums, hs, dtype):
    return product(_rows(dsums).astype(dtype, copy=False).T, _rows(hs[:-1]).astype(dtype, copy=False))
