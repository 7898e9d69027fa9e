"""LSTM and GRU along a sequence: a layer in one direction is one operation.

Step by step there is only what needs the step before: a product with the state and the cell, in the kernels. Time comes
first, so that a step's part of an array lies in one piece; the weight's gradient is one product over all steps.
"""

from __future__ import annotations

import minilm_kernels as kernels
from minilm_kernels.checks import wide

from minilm.autograd import Array, op
from minilm.autograd.mode import state
from minilm.backend import array_module
from minilm.backend import matmul as product

from .arithmetic import where
from .elementwise import astype
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
    dtypes = {wide(getattr(x, "_data", x)) for x in (weight_hh, *states.values())}
    if len(dtypes) > 1:
        given = ", ".join(f"{name} {part.dtype}" for name, part in {"weight_hh": weight_hh, **states}.items())
        raise TypeError(
            f"{name} of {given}; expected one dtype, or 16 bits beside float32: convert the input or the layer"
        )
    if alive is not None and tuple(alive.shape) != tuple(sums.shape[:2]):
        raise ValueError(f"alive has shape {tuple(alive.shape)}; expected {tuple(sums.shape[:2])}, one entry a token")


@op(keeps=("hs", "cs", "activated"))
def _lstm(sums: Array, weight_hh: Array, h: Array, c: Array, alive, reverse):
    given, (h_wide, c_wide) = _in_order(sums, reverse), (x.astype(wide(h), copy=False) for x in (h, c))
    given, alive = given.astype(wide(h), copy=False), _in_order(alive, reverse)
    hs, cs, activated = kernels.lstm(given, weight_hh, h_wide, c_wide, alive=alive)
    last = tuple(states[-1].astype(h.dtype) for states in (hs, cs))
    return (_outputs(hs, alive, reverse, h.dtype), *last), hs, cs, activated


@_lstm.gradient
def _(g, weight_hh, y, hs, cs, activated, alive, reverse, needs):  # y: an output is hs's memory, and looked after
    g, alive = _arriving(g, hs, alive, reverse), _in_order(alive, reverse)
    dgates, dh, dc = kernels.lstm_backward(*g, weight_hh, cs, activated, alive=alive)
    dweight = _weight_gradient(dgates, hs, weight_hh.dtype) if needs[1] else None
    return _in_order(dgates, reverse), dweight, dh, dc


@_lstm.composition
def _(sums, weight_hh, h, c, alive, reverse):
    def step(sums, h, c):
        gates = sums + linear(_as(h, weight_hh.dtype), weight_hh)
        return lstm_cell(_as(gates, c.dtype), c)

    return _step_by_step(step, sums, (h, c), alive, reverse)


@op(keeps=("hs", "hiddens", "activated"))
def _gru(sums: Array, weight_hh: Array, bias_hh: Array, h: Array, alive, reverse):
    given, alive = _in_order(sums, reverse).astype(wide(h), copy=False), _in_order(alive, reverse)
    hs, hiddens, activated = kernels.gru(given, weight_hh, bias_hh, h.astype(wide(h), copy=False), alive=alive)
    return (_outputs(hs, alive, reverse, h.dtype), hs[-1].astype(h.dtype)), hs, hiddens, activated


@_gru.gradient
def _(g, weight_hh, bias_hh, y, hs, hiddens, activated, alive, reverse, needs):
    g, alive = _arriving(g, hs, alive, reverse), _in_order(alive, reverse)
    dsums, dhiddens, dh = kernels.gru_backward(*g, weight_hh, hs, hiddens, activated, alive=alive)
    dweight = _weight_gradient(dhiddens, hs, weight_hh.dtype) if needs[1] else None
    dbias = kernels.column_sums(_rows(dhiddens)) if needs[2] else None
    return _in_order(dsums, reverse), dweight, dbias, dh


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


# Raw arrays, in the order of the walk.


def _in_order(x, reverse: bool):
    return x[::-1] if reverse and x is not None else x


def _outputs(hs, alive, reverse: bool, dtype):
    """What is seen of the states (T + 1, B, C): those after each token, zero for padding, in the order of time."""
    outputs = hs[1:] if alive is None else array_module(hs).where(alive[..., None], hs[1:], 0)
    return _in_order(outputs, reverse).astype(dtype, copy=False)


def _arriving(g, hs, alive, reverse: bool) -> list:
    """The gradients of outputs and last states as the kernels take them."""
    g = [x.astype(hs.dtype, copy=False) for x in g]
    g[0] = g[0] if alive is None else array_module(hs).where(alive[..., None], g[0], 0)
    g[0] = _in_order(g[0], reverse)
    return g


def _rows(x):
    return x.reshape((x.shape[0] * x.shape[1], x.shape[2]))


def _weight_gradient(dsums, hs, dtype):
    return product(_rows(dsums).astype(dtype, copy=False).T, _rows(hs[:-1]).astype(dtype, copy=False))
