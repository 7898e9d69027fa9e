"""dequantize for CUDA; the source is quantized_matmul's, which reads the same blocks."""

from __future__ import annotations

import numpy as np

from ..block_formats import BLOCK, BLOCK_BYTES
from ..cuda.launching import DTYPES, contiguous, launch_flat, program
from ..registry import array_module, register

__all__ = ["FORMATS", "dequantize"]

FORMATS = {"Q8_0": 80, "Q4_0": 40, "Q4_1": 41}  # as the source names them
_SOURCE = "../quantized_matmul/quantized.cu"


def _other_dtype(blocks, *, format, dtype) -> str | None:
    name = np.dtype(dtype).name
    return None if name in DTYPES else f"it makes {', '.join(DTYPES)}, and dtype is {name}"


@register("dequantize", name="cuda", device="cuda", limits=_other_dtype)
def dequantize(blocks, *, format, dtype):
    xp = array_module(blocks)
    (blocks,) = contiguous(xp, blocks)
    count = blocks.size // BLOCK_BYTES[format]
    out = xp.empty((*blocks.shape[:-1], blocks.shape[-1] // BLOCK_BYTES[format] * BLOCK), dtype)
    kernel = program(__file__, _SOURCE, out.dtype, FORMAT=FORMATS[format], ROWS=1).kernel("dequantize")
    launch_flat(kernel, 4 * count, 1, (blocks, out))
    return out
