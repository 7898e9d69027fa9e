"""From floating-point weights to the block formats of GGUF files."""

from __future__ import annotations

from .. import checks, registry
from ..block_formats import check_format, check_length
from ..registry import array_module

__all__ = ["quantize"]

_LARGEST = 65504.0  # float16's, which is the scale's dtype


def quantize(weight, *, format, implementation="auto"):
    """A weight as blocks of 32 integers with a float16 scale, rounded as ggml rounds; `dequantize` undoes it.

    "Q8_0": d = max|w| / 127, q = round(w / d), halves away from zero. "Q4_0": d = w' / -8 with w' the first number of
    largest size, q = floor(w / d + 8.5), at most 15. "Q4_1": m = min w, d = (max w - m) / 15,
    q = floor((w - m) / d + 0.5). All in float32, as w times the reciprocal of d; d and m are rounded to float16 last.

    `weight` (..., K) of any floating dtype, K a multiple of 32. Returns uint8 (..., K / 32 * bytes), a block being 34,
    18 or 20 bytes. ValueError for another K, an unknown format, NaN, or numbers beyond float16's 65504.

    >>> from minilm_kernels import quantize
    >>> quantize(np.arange(32, dtype=np.float32), format="Q4_0")
    array([192, 195,  72,  72,  55,  55,  55,  55,  38,  38,  38,  38,  21,
            21,  21,  21,   4,   4], dtype=uint8)
    """
    checks.is_floating("weight", weight)
    check_format(format)
    check_length("weight", weight)
    if weight.size:
        largest = float(array_module(weight).abs(weight).max())
        if not largest <= _LARGEST:
            raise ValueError(f"weight's largest size is {largest}; expected finite numbers within float16's {_LARGEST}")
    return registry.call("quantize", implementation, weight, format=format)
