"""One step of a long short-term memory, and its gradient."""

from __future__ import annotations

from .. import checks, registry
from ..into import check_into

__all__ = ["lstm_cell", "lstm_cell_backward"]


def lstm_cell(gates, c, *, into=None, implementation="auto"):
    """From the sums at the gates to the next state (Hochreiter & Schmidhuber 1997; with the forget gate of Gers 2000).

        i, f, o = logistic of theirs, g = tanh of its own;   c' = f c + i g,   h' = o tanh(c')

    `gates` (B, 4 C) holds the sums for i, f, g and o side by side, torch's order; `c` (B, C) is the cell's state; both
    of one floating dtype. Returns (h', c', activated), the last (B, 4 C) for the backward pass: new arrays, or the
    three given in `into`, C-contiguous.

    >>> h, c, _ = lstm_cell(np.zeros((1, 4)), np.ones((1, 1)))
    >>> h.round(4), c
    (array([[0.2311]]), array([[0.5]]))
    """
    _check(gates, c)
    check_into(into, (c.shape, c.shape, gates.shape), c.dtype)
    return registry.call("lstm_cell", implementation, gates, c, into=into)


def lstm_cell_backward(g_h, g_c, activated, c, c_next, *, into=None, implementation="auto"):
    """The gradients of `lstm_cell` for (gates, c), from those that arrive at h' and c', (B, C) each.

    `activated` and `c_next` are what `lstm_cell` returned for the state `c`. New arrays, or the two given in `into`,
    C-contiguous; the second may be `g_c` itself.

    >>> c = np.ones((1, 1))
    >>> h, c_next, activated = lstm_cell(np.zeros((1, 4)), c)
    >>> lstm_cell_backward(np.zeros((1, 1)), np.ones((1, 1)), activated, c, c_next)
    (array([[0.  , 0.25, 0.5 , 0.  ]]), array([[0.5]]))
    """
    _check(activated, c)
    for name, array in (("g_h", g_h), ("g_c", g_c), ("c_next", c_next)):
        checks.matches(name, array, c.shape, c.dtype)
    check_into(into, (activated.shape, c.shape), c.dtype)
    return registry.call("lstm_cell_backward", implementation, g_h, g_c, activated, c, c_next, into=into)


def _check(gates, c):
    checks.is_floating("c", c)
    if c.ndim != 2:
        raise ValueError(f"c has shape {c.shape}; expected (B, C)")
    checks.matches("gates", gates, (c.shape[0], 4 * c.shape[1]), c.dtype)
