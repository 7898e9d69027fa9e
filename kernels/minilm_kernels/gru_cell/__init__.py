"""One step of a gated recurrent unit, and its gradient."""

from __future__ import annotations

from .. import checks, registry
from ..into import check_into

__all__ = ["gru_cell", "gru_cell_backward"]


def gru_cell(inputs, hiddens, h, *, into=None, implementation="auto"):
    """From the sums at the gates to the next state (Cho et al. 2014, arXiv:1406.1078; torch's variant).

        r, z = logistic(theirs of inputs + of hiddens),   n = tanh(inputs_n + r hiddens_n),   h' = (1 - z) n + z h

    `inputs` and `hiddens` (B, 3 C) hold the sums over the input and over the state for r, z and n side by side; `h`
    (B, C) is the state; all of one floating dtype. Returns (h', activated), the last (B, 3 C) for the backward pass:
    new arrays, or the two given in `into`, C-contiguous.

    >>> h, _ = gru_cell(np.zeros((1, 3)), np.zeros((1, 3)), np.ones((1, 1)))
    >>> h
    array([[0.5]])
    """
    _check(inputs, hiddens, h)
    check_into(into, (h.shape, inputs.shape), h.dtype)
    return registry.call("gru_cell", implementation, inputs, hiddens, h, into=into)


def gru_cell_backward(g, hiddens, h, activated, *, into=None, implementation="auto"):
    """The gradients of `gru_cell` for (inputs, hiddens, h), from `g` (B, C), the one that arrives at h'.

    `activated` is what `gru_cell` returned for these `hiddens` and `h`. New arrays, or the three given in `into`,
    C-contiguous.

    >>> hiddens, h = np.zeros((1, 3)), np.ones((1, 1))
    >>> _, activated = gru_cell(np.zeros((1, 3)), hiddens, h)
    >>> gru_cell_backward(np.ones((1, 1)), hiddens, h, activated)
    (array([[0.  , 0.25, 0.5 ]]), array([[0.  , 0.25, 0.25]]), array([[0.5]]))
    """
    _check(activated, hiddens, h)
    checks.matches("g", g, h.shape, h.dtype)
    check_into(into, (hiddens.shape, hiddens.shape, h.shape), h.dtype)
    return registry.call("gru_cell_backward", implementation, g, hiddens, h, activated, into=into)


def _check(inputs, hiddens, h):
    checks.is_floating("h", h)
    if h.ndim != 2:
        raise ValueError(f"h has shape {h.shape}; expected (B, C)")
    for name, array in (("inputs", inputs), ("hiddens", hiddens)):
        checks.matches(name, array, (h.shape[0], 3 * h.shape[1]), h.dtype)
