"""A gated recurrent unit along a sequence, and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["gru", "gru_backward"]


def gru(sums, weight, bias, h, *, alive=None, implementation="auto"):
    """One step of `gru_cell` after the other, with hiddens of h weight^T + bias.

    `sums` (T, B, 3 C), over the inputs; `weight` (3 C, C) and `bias` (3 C,), or None, of their dtype or of 16 bits
    beside float32; `h` (B, C), the state before. `alive` (T, B), booleans, is False where a row's state stays as it is.
    Returns (hs, hiddens, activated): the states (T + 1, B, C), the first of them h, and two arrays (T, B, 3 C) for the
    backward pass.

    >>> hs, _, _ = gru(np.zeros((2, 1, 3)), np.zeros((3, 1)), None, np.ones((1, 1)))
    >>> hs[:, 0, 0]
    array([1.  , 0.5 , 0.25])
    """
    checks.is_sequence(sums, weight, alive, gates=3)
    checks.matches("h", h, (sums.shape[1], weight.shape[1]), sums.dtype)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {bias.shape}; expected {weight.shape[:1]}")
    return registry.call("gru", implementation, sums, weight, bias, h, alive=alive)


def gru_backward(g, g_h, weight, hs, hiddens, activated, *, alive=None, implementation="auto"):
    """The gradients of `gru` for (sums, hiddens, h), from `g` (T, B, C), which arrives at hs[1:], and `g_h` at hs[-1].

    The weight's gradient is that of hiddens, all rows of it, transposed, times all rows of hs[:-1]; the bias's is the
    sum of the rows.

    >>> hs, hiddens, activated = gru(np.zeros((2, 1, 3)), np.zeros((3, 1)), None, np.ones((1, 1)))
    >>> _, _, dh = gru_backward(np.zeros((2, 1, 1)), np.ones((1, 1)), np.zeros((3, 1)), hs, hiddens, activated)
    >>> dh
    array([[0.25]])
    """
    checks.is_sequence(activated, weight, alive, gates=3)
    T, B, C = *activated.shape[:2], weight.shape[1]
    for name, array, shape in (("g", g, (T, B, C)), ("g_h", g_h, (B, C)), ("hs", hs, (T + 1, B, C))):
        checks.matches(name, array, shape, activated.dtype)
    checks.matches("hiddens", hiddens, activated.shape, activated.dtype)
    return registry.call("gru_backward", implementation, g, g_h, weight, hs, hiddens, activated, alive=alive)
