"""The product with a weight that stays quantised in memory."""

from __future__ import annotations

from .. import checks, registry
from ..block_formats import check_length, length_of

__all__ = ["quantized_matmul"]


def quantized_matmul(x, blocks, *, format, implementation="auto"):
    """x @ w.T for a weight w in one of GGUF's block formats, which is never held whole in floating point.

    y[..., n] = sum over k of x[..., k] w[n, k], with w = `dequantize(blocks, format=format)`. The formats are "Q8_0",
    "Q4_0" and "Q4_1" (`minilm_kernels.block_formats`): 8.5, 4.5 and 5 bits a number, so that the product with one row,
    which decoding is made of, reads a quarter or a seventh of the bytes. x is not rounded to integers.

    `x` (..., K) floating-point, K a multiple of 32; `blocks` (N, K / 32 * bytes) uint8, as the `gguf` package hands
    them out or `quantize` makes them. Returns (..., N) of x's dtype. ValueError or TypeError for others.

    >>> from minilm_kernels import quantize, quantized_matmul
    >>> w = np.tile(np.arange(-16, 16, dtype=np.float32), (2, 2))
    >>> quantized_matmul(np.ones(64, np.float32), quantize(w, format="Q8_0"), format="Q8_0").round(1)
    array([-32., -32.], dtype=float32)
    """
    checks.is_floating("x", x)
    length = length_of(blocks, format)
    check_length("x", x)
    if blocks.ndim != 2:
        raise ValueError(f"blocks has shape {blocks.shape}; expected (N, bytes of a row): reshape it")
    if x.shape[-1] != length:
        raise ValueError(
            f"x has shape {x.shape}; expected (..., {length}), as a row of blocks {blocks.shape} in {format} is "
            f"{length} numbers"
        )
    return registry.call("quantized_matmul", implementation, x, blocks, format=format)
