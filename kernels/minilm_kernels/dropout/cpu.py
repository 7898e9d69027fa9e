"""dropout for the CPU: a block of random words at a time, in arrays small enough for the first cache."""

from __future__ import annotations

import numpy as np

from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from . import threshold_and_scale

_BLOCK = 512  # counters: their words and the elements they decide on fit the first cache
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_K0, _K1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@register("dropout", name="cpu", device="cpu", dtypes=("float32", "float64"))
def dropout(x, *, p, seed, offset):
    x = np.asarray(x, order="C")
    y = np.empty_like(x)
    threshold, scale = threshold_and_scale(p)
    settings = np.uint32(threshold), x.dtype.type(scale), np.uint64(seed), np.uint64(offset)
    _drop_all(parts_for(x.size), x.reshape(-1), y.reshape(-1), *settings)
    return y


@jit(inline=True)
def philox(w0, w1, w2, w3, start, offset, key):
    """Philox-4x32-10: the i-th words are those of counter start + i.

    The words are held in uint64, so that the product of two of 32 bits is exact; vector units have that product.
    """
    for i in range(w0.size):
        counter = np.uint64(start + i)
        c0, c1, c2, c3 = counter & _LOW, counter >> _SHIFT, offset & _LOW, offset >> _SHIFT
        k0, k1 = key & _LOW, key >> _SHIFT
        for _ in range(10):
            first, second = c0 * _M0, c2 * _M1
            c0, c1, c2, c3 = (second >> _SHIFT) ^ c1 ^ k0, second & _LOW, (first >> _SHIFT) ^ c3 ^ k1, first & _LOW
            k0, k1 = (k0 + _K0) & _LOW, (k1 + _K1) & _LOW
        w0[i], w1[i], w2[i], w3[i] = np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3)


@jit(inline=True)
def _drop(x, y, threshold, scale, seed, offset, start, stop):
    """The elements whose counters run from start to stop, four to a counter."""
    zero = x.dtype.type(0)
    block = np.empty((4, _BLOCK), np.uint32)
    for first in range(start, stop, _BLOCK):
        count = min(_BLOCK, stop - first)
        w0, w1, w2, w3 = block[0][:count], block[1][:count], block[2][:count], block[3][:count]
        philox(w0, w1, w2, w3, first, offset, seed)
        xs, ys = x[4 * first : 4 * (first + count)], y[4 * first : 4 * (first + count)]
        for i in range(xs.size // 4):
            ys[4 * i] = xs[4 * i] * scale if w0[i] >= threshold else zero
            ys[4 * i + 1] = xs[4 * i + 1] * scale if w1[i] >= threshold else zero
            ys[4 * i + 2] = xs[4 * i + 2] * scale if w2[i] >= threshold else zero
            ys[4 * i + 3] = xs[4 * i + 3] * scale if w3[i] >= threshold else zero
        for i in range(xs.size // 4 * 4, xs.size):
            ys[i] = xs[i] * scale if block[i % 4, i // 4] >= threshold else zero


@jit
def _drop_all(parts, x, y, threshold, scale, seed, offset):
    in_parts(_drop, parts, (x.size + 3) // 4, (x, y, threshold, scale, seed, offset))
