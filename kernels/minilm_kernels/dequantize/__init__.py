"""From the block formats of GGUF files to floating-point numbers."""

from __future__ import annotations

from .. import registry
from ..block_formats import length_of

__all__ = ["dequantize"]


def dequantize(blocks, *, format, dtype="float32", implementation="auto"):
    """The numbers that quantised blocks stand for, as ggml computes them in float32.

    A block of 32 has a float16 scale d for its integers q: d q (format "Q8_0"), d (q - 8) ("Q4_0"), or d q + m with a
    float16 m ("Q4_1"). `minilm_kernels.block_formats` has the bytes.

    `blocks` (..., K / 32 * bytes) uint8, a block being 34, 18 or 20 bytes. Returns (..., K) of `dtype`. ValueError or
    TypeError for an unknown format, other bytes, or part of a block.

    >>> from minilm_kernels import dequantize, quantize
    >>> one_block = quantize(np.linspace(-1, 1, 32, dtype=np.float32), format="Q4_1")
    >>> one_block.shape, dequantize(one_block, format="Q4_1")[[0, 31]].round(2)
    ((20,), array([-1.,  1.], dtype=float32))
    """
    length_of(blocks, format)
    return registry.call("dequantize", implementation, blocks, format=format, dtype=dtype)
