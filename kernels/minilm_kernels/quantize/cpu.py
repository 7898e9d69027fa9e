"""quantize for the CPU: two passes over a block that is in registers, all threads."""

from __future__ import annotations

import numpy as np

from ..block_formats import BLOCK, BLOCK_BYTES
from ..chunks import PARTS, SERIAL_BELOW
from ..jit import jit
from ..launch import in_parts
from ..registry import register

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_TINY = np.finfo(np.float32).tiny


@register("quantize", name="cpu", device="cpu", dtypes=("float32",))
def quantize(weight, *, format):
    w = np.ascontiguousarray(weight).reshape(-1, BLOCK)
    blocks = np.empty((len(w), BLOCK_BYTES[format]), np.uint8)
    scales = np.empty((len(w), 2 if format == "Q4_1" else 1), np.float32)
    run = {"Q8_0": _q8_0_all, "Q4_0": _q4_0_all, "Q4_1": _q4_1_all}[format]
    run(PARTS if w.size >= SERIAL_BELOW else 1, w, blocks, scales)
    blocks[:, : 2 * scales.shape[1]] = scales.astype(np.float16).view(np.uint8)  # Numba has no float16
    return blocks.reshape(*weight.shape[:-1], weight.shape[-1] // BLOCK * BLOCK_BYTES[format])


# The rounding of each step is part of the format, so nothing here may be reordered or contracted.
@jit(inline=True, fastmath=set())
def _reciprocal(d):
    return _ONE / d if abs(d) >= _TINY else _ZERO


@jit(fastmath=set())
def _q8_0(w, blocks, scales, start, stop):
    for block in range(start, stop):
        ws, q = w[block], blocks[block, 2:]
        largest = _ZERO
        for i in range(BLOCK):
            largest = max(largest, abs(ws[i]))
        d = largest / np.float32(127)
        scales[block, 0], inverse = d, _reciprocal(d)
        for i in range(BLOCK):
            n = ws[i] * inverse
            size = np.floor(abs(n))
            size += _ONE if abs(n) - size >= _HALF else _ZERO
            q[i] = np.uint8(np.int8(size if n >= _ZERO else -size))


@jit(inline=True, fastmath=set())
def _nibble(n):
    return np.uint8(min(n, np.float32(15)))


@jit(fastmath=set())
def _q4_0(w, blocks, scales, start, stop):
    for block in range(start, stop):
        ws, q = w[block], blocks[block, 2:]
        largest = _ZERO
        for i in range(BLOCK):
            if abs(ws[i]) > abs(largest):
                largest = ws[i]
        d = largest / np.float32(-8)
        scales[block, 0], inverse, shift = d, _reciprocal(d), np.float32(8.5)
        for i in range(BLOCK // 2):
            q[i] = _nibble(ws[i] * inverse + shift) | _nibble(ws[i + BLOCK // 2] * inverse + shift) << 4


@jit(fastmath=set())
def _q4_1(w, blocks, scales, start, stop):
    for block in range(start, stop):
        ws, q = w[block], blocks[block, 4:]
        low, high = ws[0], ws[0]
        for i in range(BLOCK):
            low, high = min(low, ws[i]), max(high, ws[i])
        d = (high - low) / np.float32(15)
        scales[block, 0], scales[block, 1], inverse = d, low + _ZERO, _reciprocal(d)  # -0 + 0 is 0
        for i in range(BLOCK // 2):
            first, second = (ws[i] - low) * inverse, (ws[i + BLOCK // 2] - low) * inverse
            q[i] = _nibble(first + _HALF) | _nibble(second + _HALF) << 4


@jit
def _q8_0_all(parts, w, blocks, scales):
    in_parts(_q8_0, parts, len(w), (w, blocks, scales))


@jit
def _q4_0_all(parts, w, blocks, scales):
    in_parts(_q4_0, parts, len(w), (w, blocks, scales))


@jit
def _q4_1_all(parts, w, blocks, scales):
    in_parts(_q4_1, parts, len(w), (w, blocks, scales))
