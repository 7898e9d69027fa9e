"""The specification of embedding_backward, in plain array code."""

from __future__ import annotations

from ..registry import array_module, register
from . import out_of_range


@register("embedding_backward", name="reference")
def embedding_backward(g, indices, out):
    wrong = (indices < 0) | (indices >= len(out))
    if wrong.any():
        position = int(wrong.argmax())
        raise out_of_range(position, int(indices[position]), len(out))
    array_module(g).add.at(out, indices, g)
    return out
