"""quantize for CUDA: one pass, four threads a block."""

from __future__ import annotations

import numpy as np

from ..block_formats import BLOCK, BLOCK_BYTES
from ..cuda.launching import DTYPES, contiguous, launch_flat, program
from ..dequantize.cuda import FORMATS
from ..registry import array_module, register


@register("quantize", name="cuda", device="cuda", dtypes=DTYPES)
def quantize(weight, *, format):
    xp = array_module(weight)
    (weight,) = contiguous(xp, weight)
    blocks = xp.empty((*weight.shape[:-1], weight.shape[-1] // BLOCK * BLOCK_BYTES[format]), np.uint8)
    kernel = program(__file__, "quantize.cu", weight.dtype, FORMAT=FORMATS[format]).kernel("quantize")
    launch_flat(kernel, 4 * (weight.size // BLOCK), 1, (weight, blocks))
    return blocks
