"""The specification of dropout, in plain array code."""

from __future__ import annotations

from ..registry import array_module, register
from . import threshold_and_scale

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF


@register("dropout", name="reference")
def dropout(x, *, p, seed, offset):
    xp = array_module(x)
    threshold, scale = threshold_and_scale(p)
    words = philox(xp.arange((x.size + 3) // 4, dtype=xp.uint64), offset, seed)
    kept = xp.stack(words, axis=-1).reshape(-1)[: x.size].reshape(x.shape) >= threshold
    return xp.where(kept, x * scale, 0)


def philox(counters, offset, key):
    """Four arrays of 32 random bits (as uint64) for each counter: Philox-4x32 with ten rounds."""
    xp = array_module(counters)
    c0, c1 = counters & LOW, counters >> 32
    c2, c3 = xp.full_like(counters, offset & LOW), xp.full_like(counters, offset >> 32)
    k0, k1 = key & LOW, key >> 32
    for _ in range(10):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second & LOW, (first >> 32) ^ c3 ^ k1, first & LOW
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW, (k1 + KEY_STEPS[1]) & LOW
    return c0, c1, c2, c3
