"""The block formats of GGUF files: 32 neighbouring numbers of a row share a float16 scale.

| format | a block's bytes                                     | number i of the block |
| ------ | --------------------------------------------------- | --------------------- |
| Q8_0   | float16 d, 32 int8 q                                | d q[i]                |
| Q4_0   | float16 d, 16 bytes: q[i] low, q[i + 16] high       | d (q[i] - 8)          |
| Q4_1   | float16 d, float16 m, 16 bytes as in Q4_0           | d q[i] + m            |

Little-endian, the blocks of a row side by side: a (N, K) weight is a uint8 array (N, K / 32 * bytes), which is what the
`gguf` package hands out. A reader of such files needs no copy.
"""

from __future__ import annotations

__all__ = ["BLOCK", "BLOCK_BYTES", "check_format", "check_length", "length_of"]

BLOCK = 32
BLOCK_BYTES = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}


def check_format(format) -> None:
    """ValueError unless `format` is the name of one."""
    if format not in BLOCK_BYTES:
        raise ValueError(f"no block format is named {format!r}; there are: {', '.join(BLOCK_BYTES)}")


def check_length(name: str, array) -> None:
    """ValueError unless the rows of `array` can be cut into blocks."""
    if array.ndim == 0 or array.shape[-1] % BLOCK:
        raise ValueError(
            f"{name} has shape {array.shape}; expected (..., K) with K a multiple of {BLOCK}, the length of a block: "
            f"pad its rows with zeros"
        )


def length_of(blocks, format) -> int:
    """How many numbers a row of `blocks` stands for; TypeError or ValueError unless it holds whole blocks."""
    check_format(format)
    dtype = getattr(blocks, "dtype", None)
    if dtype != "uint8":
        came = type(blocks).__name__ if dtype is None else dtype
        raise TypeError(f"blocks is {came}; expected an array of uint8, the blocks' bytes: use blocks.view('uint8')")
    size = BLOCK_BYTES[format]
    if blocks.ndim == 0 or blocks.shape[-1] % size:
        raise ValueError(
            f"blocks has shape {blocks.shape}; expected (..., K / {BLOCK} * {size}), as a block of {format} is {size} "
            f"bytes: is it another format's?"
        )
    return blocks.shape[-1] // size * BLOCK
