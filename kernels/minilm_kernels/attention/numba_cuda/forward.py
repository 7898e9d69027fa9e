"""Attention forward: a block of threads has a tile of queries, and the tiles of keys pass by."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ...simt import cuda
from .tiles import capped_score, keep_factor, key_range, load_tile, tile_sizes

__all__ = ["forward_kernel"]

ZERO, MINUS_INFINITY = np.float32(0), np.float32(-math.inf)


@cache
def forward_kernel(D: int):
    """The kernel for heads of size D, for ceil(T / tile) * H * B blocks of (tile, thread_rows) threads.

    `first_keys`, `stop_keys` and `positions` are (B, T), `bias` is (B, H, T, S), `slopes` (B, H): views of what was
    given. `threshold` is 0 where nothing is dropped, and `soft_cap` where nothing is capped.
    """
    TILE, THREAD_ROWS, ROWS, COLUMNS = tile_sizes(D)
    WIDTH, SIDE = (
        COLUMNS * TILE + 1,
        TILE + 1,
    )  # one more than there is: the elements of a column lie in different banks of memory

    def forward(
        q, k, v, first_keys, stop_keys, positions, scale, soft_cap, bias, slopes, threshold, keep_scale, seed, out,
        logsumexp
    ):  # fmt: skip
        H, T, Hk, S = q.shape[1], q.shape[2], k.shape[1], k.shape[2]
        dropout = threshold, keep_scale, seed
        queries = cuda.shared.array((TILE, WIDTH), np.float32)
        keys = cuda.shared.array((TILE, WIDTH), np.float32)
        values = cuda.shared.array((TILE, WIDTH), np.float32)
        scores = cuda.shared.array((TILE, SIDE), np.float32)
        weights = cuda.shared.array((TILE, SIDE), np.float32)
        largest = cuda.local.array(ROWS, np.float32)  # of the scores of each row so far
        totals = cuda.local.array(ROWS, np.float32)  # of the weights in this thread's column, relative to the largest
        products = cuda.local.array(ROWS, np.float32)
        sums = cuda.local.array((ROWS, COLUMNS), np.float32)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        tiles = (T + TILE - 1) // TILE
        start = cuda.blockIdx.x % tiles * TILE
        h = cuda.blockIdx.x // tiles % H
        b = cuda.blockIdx.x // tiles // H
        hk = h // (H // Hk)

        for r in range(ROWS):
            largest[r], totals[r] = MINUS_INFINITY, ZERO
            for c in range(COLUMNS):
                sums[r, c] = ZERO
        load_tile(queries, q, b, h, start)
        low, high = key_range(first_keys, stop_keys, b, start, min(start + TILE, T), TILE)
        for j in range(low, high, TILE):
            load_tile(keys, k, b, hk, j)
            load_tile(values, v, b, hk, j)
            cuda.syncthreads()

            for r in range(ROWS):
                products[r] = ZERO
            for d in range(D):
                element = keys[x, d]
                for r in range(ROWS):
                    products[r] += queries[y + r * THREAD_ROWS, d] * element
            for r in range(ROWS):
                row, score = y + r * THREAD_ROWS, MINUS_INFINITY
                t, key = start + row, j + x
                if t < T and first_keys[b, t] <= key and key < stop_keys[b, t]:
                    distance = np.float32(abs(positions[b, t] - key))
                    score = capped_score(products[r] * scale, soft_cap)
                    score += np.float32(bias[b, h, t, key]) - np.float32(slopes[b, h]) * distance
                scores[row, x] = score
            cuda.syncthreads()

            # The online softmax. Each thread finds the largest score of its rows for itself, which takes less than
            # waiting for another; it makes and adds up the weights of its column alone.
            for r in range(ROWS):
                row, highest = y + r * THREAD_ROWS, largest[r]
                for c in range(TILE):
                    highest = max(highest, scores[row, c])
                base = ZERO if highest == MINUS_INFINITY else highest
                shrink = np.float32(math.exp(largest[r] - base))
                weight = np.float32(math.exp(scores[row, x] - base))
                largest[r], totals[r] = highest, totals[r] * shrink + weight
                weights[row, x] = weight * keep_factor(b, h, start + row, j + x, (H, T, S), dropout)
                for c in range(COLUMNS):
                    sums[r, c] *= shrink
            cuda.syncthreads()

            for i in range(TILE):
                for c in range(COLUMNS):
                    element = values[i, x + c * TILE]
                    for r in range(ROWS):
                        sums[r, c] += weights[y + r * THREAD_ROWS, i] * element
            cuda.syncthreads()  # nobody reads the tiles any more

        for r in range(ROWS):
            scores[y + r * THREAD_ROWS, x] = totals[r]
        cuda.syncthreads()
        for r in range(ROWS):
            row, total = y + r * THREAD_ROWS, ZERO
            for c in range(TILE):
                total += scores[row, c]
            if start + row < T:
                share = ZERO if total == 0 else np.float32(1) / total
                for c in range(COLUMNS):
                    if x + c * TILE < D:
                        out[b, h, start + row, x + c * TILE] = sums[r, c] * share
                if x == 0:
                    found = MINUS_INFINITY if total == 0 else largest[r] + np.float32(math.log(total))
                    logsumexp[b, h, start + row] = found

    return forward
