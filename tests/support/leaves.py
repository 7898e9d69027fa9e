"""Leaves of a graph, for tests of the engine."""

from __future__ import annotations

import minilm
from minilm import Tensor

__all__ = ["leaf"]


def leaf(value, dtype: str = "float64") -> Tensor:
    """A tensor that requires a gradient."""
    return minilm.tensor(value, dtype=dtype, requires_grad=True)
