"""A long short-term memory along a sequence, and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["lstm", "lstm_backward"]


def lstm(sums, weight, h, c, *, alive=None, implementation="auto"):
    """One step of `lstm_cell` after the other: the sums at the gates are sums[t] + h weight^T.

    `sums` (T, B, 4 C), over the inputs; `weight` (4 C, C), of their dtype or of 16 bits beside float32; `h` and `c`
    (B, C), the state before. `alive` (T, B), booleans, is False where a row's state stays as it is. Returns (hs, cs,
    activated): the states (T + 1, B, C), the first of them h and c, and what the gates were (T, B, 4 C), for the
    backward pass.

    >>> hs, cs, _ = lstm(np.zeros((2, 1, 4)), np.zeros((4, 1)), np.zeros((1, 1)), np.ones((1, 1)))
    >>> cs[:, 0, 0]
    array([1.  , 0.5 , 0.25])
    """
    checks.is_sequence(sums, weight, alive, gates=4)
    for name, array in (("h", h), ("c", c)):
        checks.matches(name, array, (sums.shape[1], weight.shape[1]), sums.dtype)
    return registry.call("lstm", implementation, sums, weight, h, c, alive=alive)


def lstm_backward(g, g_h, g_c, weight, cs, activated, *, alive=None, implementation="auto"):
    """The gradients of `lstm` for (sums, h, c), from `g` (T, B, C), at hs[1:], and two at the last states.

    `g_h` and `g_c` (B, C) arrive at hs[-1], beside g[-1], and at cs[-1]. The weight's gradient is that of sums, all
    rows of it, transposed, times all rows of hs[:-1].

    >>> zeros, one = np.zeros((1, 1)), np.ones((1, 1))
    >>> hs, cs, activated = lstm(np.zeros((2, 1, 4)), np.zeros((4, 1)), zeros, one)
    >>> _, _, dc = lstm_backward(np.zeros((2, 1, 1)), zeros, one, np.zeros((4, 1)), cs, activated)
    >>> dc
    array([[0.25]])
    """
    checks.is_sequence(activated, weight, alive, gates=4)
    T, B, C = *activated.shape[:2], weight.shape[1]
    for name, array, shape in (
        ("g", g, (T, B, C)),
        ("g_h", g_h, (B, C)),
        ("g_c", g_c, (B, C)),
        ("cs", cs, (T + 1, B, C)),
    ):
        checks.matches(name, array, shape, activated.dtype)
    return registry.call("lstm_backward", implementation, g, g_h, g_c, weight, cs, activated, alive=alive)
