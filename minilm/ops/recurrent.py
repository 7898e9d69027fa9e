"""The cells of recurrent networks: from the sums at the gates to the next state."""

from __future__ import annotations

import minilm_kernels as kernels

from minilm.autograd import Array, op

from .activations import sigmoid
from .elementwise import tanh
from .shape import split

__all__ = ["gru_cell", "lstm_cell"]


@op(keeps=("activated",), precision="float32")
def lstm_cell(gates: Array, c: Array):
    """(h', c'): i, f, o = sigmoid of theirs, g = tanh of its own; c' = f c + i g, h' = o tanh(c').

    gates (B, 4 C), the sums for i, f, g and o side by side; c (B, C). Hochreiter and Schmidhuber 1997.

    >>> import numpy as np
    >>> h, c = lstm_cell(np.zeros((1, 8), np.float32), np.ones((1, 2), np.float32))
    >>> c.tolist(), bool(np.allclose(h, np.tanh(0.5) / 2))  # each gate is 1/2, the candidate 0
    ([[0.5, 0.5]], True)
    """
    h, c_next, activated = kernels.lstm_cell(gates, c)
    return (h, c_next), activated


@lstm_cell.gradient
def _(g, c, y, activated):
    return kernels.lstm_cell_backward(*g, activated, c, y[1])


@lstm_cell.composition
def _(gates, c):
    i, f, g, o = split(gates, 4, axis=1)
    c_next = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c_next), c_next


@op(keeps=("activated",), precision="float32")
def gru_cell(inputs: Array, hiddens: Array, h: Array):
    """h' = (1 - z) n + z h with r, z = sigmoid(inputs + hiddens) and n = tanh(inputs_n + r hiddens_n).

    inputs and hiddens (B, 3 C), the sums over the input and over the state for r, z and n side by side; h (B, C). Cho
    et al. 2014, https://arxiv.org/abs/1406.1078.

    >>> import numpy as np
    >>> zeros = np.zeros((1, 6), np.float32)
    >>> gru_cell(zeros, zeros, np.ones((1, 2), np.float32)).tolist()  # each gate is 1/2, the candidate 0
    [[0.5, 0.5]]
    """
    return kernels.gru_cell(inputs, hiddens, h)


@gru_cell.gradient
def _(g, hiddens, h, activated):
    return kernels.gru_cell_backward(g, hiddens, h, activated)


@gru_cell.composition
def _(inputs, hiddens, h):
    (ir, iz, i_n), (hr, hz, hn) = split(inputs, 3, axis=1), split(hiddens, 3, axis=1)
    z, n = sigmoid(iz + hz), tanh(i_n + sigmoid(ir + hr) * hn)
    return (1 - z) * n + z * h
