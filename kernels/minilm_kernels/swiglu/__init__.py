"""The gated linear unit of LLaMA's feed-forward layers, and its gradient."""

from __future__ import annotations

from .. import checks, registry

__all__ = ["swiglu", "swiglu_backward"]


def swiglu(gate, up, *, implementation="auto"):
    """`up` let through by `gate`: y = silu(gate) up with silu(x) = x / (1 + e^-x) (Shazeer 2020, arXiv:2002.05202).

    `gate` and `up` have one shape and floating dtype, and the result has the same. ValueError or TypeError for others.

    >>> swiglu(np.array([0.0, 1.0, -20.0]), np.array([5.0, 2.0, 1.0])).round(4)
    array([ 0.    ,  1.4621, -0.    ])
    """
    checks.is_floating("gate", gate)
    checks.matches("up", up, gate.shape, gate.dtype)
    return registry.call("swiglu", implementation, gate, up)


def swiglu_backward(g, gate, up, *, implementation="auto"):
    """The gradients of `swiglu` for gate and up, from `g`, the one that arrives at y.

    With s = 1 / (1 + e^-gate):  dgate = g up s (1 + gate (1 - s)),  dup = g gate s.

    All three arrays have one shape and dtype, and so have the two that are returned, (dgate, dup).

    >>> swiglu_backward(np.ones(1), np.array([0.0]), np.array([3.0]))
    (array([1.5]), array([0.]))
    """
    checks.is_floating("gate", gate)
    checks.matches("up", up, gate.shape, gate.dtype)
    checks.matches("g", g, gate.shape, gate.dtype)
    return registry.call("swiglu_backward", implementation, g, gate, up)
