"""What the kernels share: tiles of queries and keys in shared memory, scores and what changes them, dropout."""

from __future__ import annotations

import math

import numpy as np

from ...dropout.reference import KEY_STEPS, MULTIPLIERS
from ...simt import SIMULATED, cuda, device_function

__all__ = ["capped_score", "keep_factor", "key_range", "load_tile", "tile_sizes"]

FIRST, SECOND = map(np.uint64, MULTIPLIERS)
FIRST_STEP, SECOND_STEP = map(np.uint64, KEY_STEPS)
LOW, HALF, NONE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(0)


def tile_sizes(head_size: int) -> tuple[int, int, int, int]:
    """(tile, thread rows, rows a thread, columns a thread): queries and keys to a tile, and who computes what of it.

    A block has tile x thread_rows threads. Thread (x, y) has of a tile of scores column x and the rows y, y +
    thread_rows, ..., and of a tile of results the same rows and the columns x, x + tile, ... The larger a head is, the
    fewer of them fit into the 48 KiB of shared memory that every card has.
    """
    tile, thread_rows = (32, 8) if head_size <= 64 else (16, 8) if head_size <= 128 else (8, 8)
    if SIMULATED:  # Python takes a millisecond to start one of its threads
        tile, thread_rows = 8, 4
    return tile, thread_rows, tile // thread_rows, -(-head_size // tile)


@device_function
def load_tile(tile, array, b, h, start):
    """tile[i, d] = array[b, h, start + i, d], and zero beyond the last row and column."""
    for i in range(cuda.threadIdx.y, tile.shape[0], cuda.blockDim.y):
        for d in range(cuda.threadIdx.x, tile.shape[1], cuda.blockDim.x):
            value = np.float32(0)
            if start + i < array.shape[2] and d < array.shape[3]:
                value = np.float32(array[b, h, start + i, d])
            tile[i, d] = value


@device_function
def key_range(first_keys, stop_keys, b, start, stop, tile):
    """The first and the last key, and one more, that queries start ... stop - 1 see; the first one of a tile."""
    low, high = np.int64(2**62), np.int64(0)
    for t in range(start, stop):
        if first_keys[b, t] < stop_keys[b, t]:
            low, high = min(low, first_keys[b, t]), max(high, stop_keys[b, t])
    return min(low, high) // tile * tile, high


@device_function
def capped_score(score, soft_cap):
    """c tanh(score / c); the score itself for c = 0."""
    if soft_cap > 0:
        return soft_cap * np.float32(math.tanh(score / soft_cap))
    return score


@device_function
def keep_factor(b, h, t, key, shape, dropout):
    """What dropout multiplies weight (b, h, t, key) by: 0 or 1 / (1 - p), as `minilm_kernels.dropout` draws it."""
    threshold, scale, seed = dropout
    if threshold == NONE:
        return np.float32(1)
    H, T, S = shape
    place = ((b * H + h) * T + t) * ((S + 3) // 4 * 4) + key
    return scale if _random_word(np.uint64(place // 4), key % 4, seed) >= threshold else np.float32(0)


@device_function
def _random_word(counter, word, seed):
    """One of the four words of Philox-4x32-10."""
    c0, c1, c2, c3 = counter & LOW, counter >> HALF, NONE, NONE
    k0, k1 = seed & LOW, seed >> HALF
    for _ in range(10):
        first, second = c0 * FIRST, c2 * SECOND
        c0, c1, c2, c3 = (second >> HALF) ^ c1 ^ k0, second & LOW, (first >> HALF) ^ c3 ^ k1, first & LOW
        k0, k1 = (k0 + FIRST_STEP) & LOW, (k1 + SECOND_STEP) & LOW
    if word == 0:
        return c0
    if word == 1:
        return c1
    return c2 if word == 2 else c3
