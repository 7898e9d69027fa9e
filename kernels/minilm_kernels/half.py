"""float16 and bfloat16 on the CPU, which has no instructions for them: computed in float32, and rounded once.

Slow, for every array is converted on the way in and out, and right: it is how mixed precision is tested without a GPU.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .checks import is_half
from .into import placed

__all__ = ["OPERATIONS", "STATISTICS", "through_float32"]

# What mixed precision runs in a low precision, and what sums up rows: in bfloat16 a sum of ones ends at 256.
# (Not the operations that change their arguments in place.)
OPERATIONS = {
    f"{name}{suffix}"
    for name in (
        *("attention", "cross_entropy", "dropout", "elementwise", "gelu", "linear_cross_entropy", "rotary", "swiglu"),
        *("add_layer_norm", "add_rms_norm", "layer_norm", "log_softmax", "rms_norm", "softmax"),
    )
    for suffix in ("", "_backward")
}
# Results that stay float32: losses, and what the backward pass takes exponentials of.
STATISTICS = {
    "attention": (1,),
    "cross_entropy": (0, 1),
    "cross_entropy_with_gradient": (0, 1),
    "linear_cross_entropy": (0, 1),
}


def through_float32(operation: str, call):
    """The function `operation` for half-precision arrays; `call(operation, "auto", ...)` runs the one for float32."""
    return partial(_run, operation, call)


def _run(operation, call, *args, into=None, **settings):
    dtype = args[0].dtype
    wide = [_widened(x) for x in args]
    settings = {name: _widened(value) for name, value in settings.items()}
    if operation == "attention_backward":
        settings["into"] = None
    results = call(operation, "auto", *wide, **settings)
    if not isinstance(results, tuple):
        return results.astype(dtype)
    exact = STATISTICS.get(operation, ())
    narrow = tuple(x if x is None or i in exact else x.astype(dtype) for i, x in enumerate(results))
    return placed(narrow, into)


def _widened(value):
    """An array, or a number of NumPy's (what it makes of arrays without axes), as float32 if it has 16 bits."""
    return value.astype(np.float32) if isinstance(value, (np.ndarray, np.generic)) and is_half(value.dtype) else value
