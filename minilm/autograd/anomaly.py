"""What anomaly mode looks at after each operation: whether it made NaN or inf."""

from __future__ import annotations

import math

from minilm import backend

from .errors import where_called

__all__ = ["check_finite", "has_nonfinite"]


def check_finite(operation: str, arrays: list, out) -> None:
    """FloatingPointError, naming the call, if what an operation made of finite inputs has NaN or inf."""
    if any(has_nonfinite(array) for array in arrays):
        return  # not this operation's fault, or what was asked for (where(mask, scores, -inf))
    for part in out if isinstance(out, tuple) else (out,):
        if has_nonfinite(part):
            raise FloatingPointError(
                f"the forward pass of {operation} made NaN or inf from finite inputs, called at {where_called()}"
            )


def has_nonfinite(array) -> bool:
    """Whether an array or number has NaN or inf."""
    if isinstance(array, float):
        return not math.isfinite(array)
    if not hasattr(array, "dtype") or array.dtype.kind not in "fV":
        return False
    return not bool(backend.array_module(array).isfinite(array).all())
