"""A pseudorandom permutation of 0..n-1 that is computed, not stored: shuffling takes no memory and no set-up."""

from __future__ import annotations

import numpy as np

__all__ = ["mix", "permute"]

_MASK = (1 << 64) - 1
_ROUNDS = 6


def mix(*numbers: int) -> int:
    """A 64-bit hash of integers (SplitMix64's finaliser, Steele et al. 2014), the same on every machine and version.

    >>> mix(1, 2) == mix(1, 2), mix(1, 2) == mix(2, 1)
    (True, False)
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def permute(indices: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where a permutation of range(n), chosen by `key`, takes each of `indices`; int64, the shape of `indices`.

    A Feistel network permutes the next larger range of 4**k numbers, and a number that falls outside range(n) is sent
    through again until it falls inside ("cycle walking", Black and Rogaway 2002), which keeps it a permutation.

    >>> sorted(permute(np.arange(10), 10, key=7).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    if n == 1:
        return np.zeros_like(indices, dtype=np.int64)
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    keys = [np.uint64(mix(key, i)) for i in range(_ROUNDS)]
    values = _feistel(np.asarray(indices).astype(np.uint64), half, keys)
    while (outside := values >= n).any():
        values[outside] = _feistel(values[outside], half, keys)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, half: int, keys: list[np.uint64]) -> np.ndarray:
    """Left and right halves of the bits change places, one of them changed by a hash of the other, round by round."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        hashed = (right ^ key) * np.uint64(0xBF58476D1CE4E5B9)
        hashed ^= hashed >> np.uint64(29)
        hashed *= np.uint64(0x94D049BB133111EB)
        left, right = right, left ^ (hashed >> np.uint64(32) & mask)
    return left << shift | right
