"""The specification of quantized_matmul, in plain array code."""

from __future__ import annotations

from ..dequantize.reference import dequantize
from ..products import matmul
from ..registry import register


@register("quantized_matmul", name="reference")
def quantized_matmul(x, blocks, *, format):
    return matmul(x, dequantize(blocks, format=format, dtype=x.dtype).T)
