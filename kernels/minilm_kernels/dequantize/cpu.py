"""dequantize for the CPU, and what the matrix product shares with it: a block as four vectors in registers."""

from __future__ import annotations

import numpy as np

from ..block_formats import BLOCK, BLOCK_BYTES
from ..chunks import PARTS, SERIAL_BELOW
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..simd import LANES, fma, multiply, splat, store
from .lanes import HALVES, half_bits, load_high_nibbles, load_int8, load_low_nibbles

__all__ = ["FORMAT_NUMBERS", "byte_rows", "half", "q4_0", "q4_1", "q8_0", "unpack"]

# A kernel gets a format as its number, and chooses between formats outside its inner loop.
FORMAT_NUMBERS = {"Q8_0": 0, "Q4_0": 1, "Q4_1": 2}

_Q8_0_BYTES, _Q4_0_BYTES, _Q4_1_BYTES = BLOCK_BYTES["Q8_0"], BLOCK_BYTES["Q4_0"], BLOCK_BYTES["Q4_1"]
_EIGHT = np.float32(8)


def _makes_float32(blocks, *, format, dtype):
    return None if np.dtype(dtype) == np.float32 else f"it makes float32, and dtype is {dtype}"


@register("dequantize", name="cpu", device="cpu", limits=_makes_float32)
def dequantize(blocks, *, format, dtype):
    count = blocks.size // BLOCK_BYTES[format]
    out = np.empty(count * BLOCK, np.float32)
    if count > 0:
        unpack(FORMAT_NUMBERS[format], byte_rows(blocks), out, count)
    return out.reshape(*blocks.shape[:-1], blocks.shape[-1] // BLOCK_BYTES[format] * BLOCK)


def unpack(format, rows, out, count):
    """Writes the numbers of the first `count` blocks of `rows` to the vector `out`."""
    _unpack_all(PARTS if count * BLOCK >= SERIAL_BELOW else 1, format, HALVES, rows, out, count)


def byte_rows(blocks):
    """`blocks` as (rows, bytes) that lie side by side, read-only, so that all get one compiled kernel."""
    rows = np.ascontiguousarray(blocks).view(np.ndarray).reshape(-1, blocks.shape[-1])
    rows.flags.writeable = False
    return rows


@jit(inline=True)
def half(halves, blocks, at):
    """The float16 at byte `at`, in all lanes."""
    return splat(halves[half_bits(blocks, at)])


# A product of a float16 and an eight-bit integer fits a float32: these are ggml's numbers, but for the sign of a zero.


@jit(inline=True)
def q8_0(halves, blocks, at):
    """The block at byte `at`, as four vectors."""
    d = half(halves, blocks, at)
    return (
        multiply(d, load_int8(blocks, at + 2)),
        multiply(d, load_int8(blocks, at + 10)),
        multiply(d, load_int8(blocks, at + 18)),
        multiply(d, load_int8(blocks, at + 26)),
    )


@jit(inline=True)
def _nibbles(d, m, blocks, at):
    """d q + m for the sixteen bytes at `at`."""
    return (
        fma(d, load_low_nibbles(blocks, at), m),
        fma(d, load_low_nibbles(blocks, at + 8), m),
        fma(d, load_high_nibbles(blocks, at), m),
        fma(d, load_high_nibbles(blocks, at + 8), m),
    )


@jit(inline=True)
def q4_0(halves, blocks, at):
    """The block at byte `at`, as four vectors."""
    d = half(halves, blocks, at)
    return _nibbles(d, multiply(d, splat(-_EIGHT)), blocks, at + 2)


@jit(inline=True)
def q4_1(halves, blocks, at):
    """The block at byte `at`, as four vectors."""
    return _nibbles(half(halves, blocks, at), half(halves, blocks, at + 2), blocks, at + 4)


@jit(inline=True)
def _unpack_blocks(block, size, halves, blocks, out, start, stop):
    for i in range(start, stop):
        w0, w1, w2, w3 = block(halves, blocks, i * size)
        store(out, i * BLOCK, w0)
        store(out, i * BLOCK + LANES, w1)
        store(out, i * BLOCK + 2 * LANES, w2)
        store(out, i * BLOCK + 3 * LANES, w3)


@jit
def _unpack(format, halves, blocks, out, start, stop):
    if format == 0:
        _unpack_blocks(q8_0, _Q8_0_BYTES, halves, blocks, out, start, stop)
    elif format == 1:
        _unpack_blocks(q4_0, _Q4_0_BYTES, halves, blocks, out, start, stop)
    else:
        _unpack_blocks(q4_1, _Q4_1_BYTES, halves, blocks, out, start, stop)


@jit
def _unpack_all(parts, format, halves, blocks, out, count):
    in_parts(_unpack, parts, count, (format, halves, blocks, out))
