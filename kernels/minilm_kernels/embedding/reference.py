"""The specification of embedding_backward, in plain array code."""

from __future__ import annotations

from ..portable import add_at, check_range
from ..registry import register
from . import out_of_range


@register("embedding_backward", name="reference")
def embedding_backward(g, indices, out):
    check_range(indices, len(out), lambda position, index: out_of_range(position, index, len(out)))
    add_at(out, indices, g)
    return out
