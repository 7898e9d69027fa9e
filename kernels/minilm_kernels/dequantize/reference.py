"""The specification of dequantize, in plain array code."""

from __future__ import annotations

from ..block_formats import BLOCK, BLOCK_BYTES
from ..registry import array_module, register


@register("dequantize", name="reference")
def dequantize(blocks, *, format, dtype):
    xp = array_module(blocks)
    bytes_ = blocks.reshape(*blocks.shape[:-1], blocks.shape[-1] // BLOCK_BYTES[format], BLOCK_BYTES[format])
    wide = xp.promote_types(dtype, "float32")
    half = lambda start: xp.ascontiguousarray(bytes_[..., start : start + 2]).view("float16").astype(wide)
    if format == "Q8_0":
        numbers = half(0) * bytes_[..., 2:].astype("int8")
    else:
        nibbles = bytes_[..., 2 if format == "Q4_0" else 4 :]
        q = xp.concatenate([nibbles & 15, nibbles >> 4], axis=-1)
        numbers = half(0) * (q.astype(wide) - 8) if format == "Q4_0" else half(0) * q + half(2)
    return numbers.astype(dtype, copy=False).reshape(*blocks.shape[:-1], bytes_.shape[-2] * BLOCK)
