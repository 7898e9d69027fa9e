"""Attention backward in three kernels, each the sole owner of what it sums up, in a fixed order: no atomics.

    dq       a block has a tile of queries, and the tiles of keys pass by
    dk, dv   a block has a tile of keys, and the tiles of all queries that share it pass by
    dbias    a block has a tile of the bias, and the batch rows and heads that it was added to pass by

Each computes the weights of a tile again, from the scores and logsumexp. That is two products too many, and the price
of needing no sum over blocks.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ...simt import cuda, device_function
from .tiles import capped_score, keep_factor, key_range, load_tile, tile_sizes

__all__ = ["bias_kernel", "key_kernel", "query_kernel"]

ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-math.inf)


@cache
def _tile_gradients(D: int):
    """The step that the three kernels share, for the rows and the column of scores that a thread has."""
    _, THREAD_ROWS, ROWS, _ = tile_sizes(D)

    @device_function
    def tile_gradients(tiles, b, h, start, j, ranges, given, settings, dropout, weights, d_biased, d_scores):
        """Sets weights to dropout(P), d_biased to dS, and d_scores to the products' gradients: dS through cap, scale.

        `tiles` holds queries from `start` and keys from `j` on, with their g and values; what no query sees is zero.
        """
        queries, grads, keys, values = tiles
        first_keys, stop_keys, positions = ranges
        logsumexp, deltas = given
        scale, soft_cap, bias, slopes = settings
        H, T, S = logsumexp.shape[1], logsumexp.shape[2], bias.shape[3]
        products = cuda.local.array(ROWS, np.float32)
        d_weights = cuda.local.array(ROWS, np.float32)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        for r in range(ROWS):
            products[r], d_weights[r] = ZERO, ZERO
        for d in range(D):
            key, value = keys[x, d], values[x, d]
            for r in range(ROWS):
                products[r] += queries[y + r * THREAD_ROWS, d] * key
                d_weights[r] += grads[y + r * THREAD_ROWS, d] * value
        for r in range(ROWS):
            row, t, s = y + r * THREAD_ROWS, start + y + r * THREAD_ROWS, j + x
            weight, d_score, slope = ZERO, ZERO, ONE
            exponent = np.float32(logsumexp[b, h, t]) if t < T else MINUS_INFINITY
            if exponent != MINUS_INFINITY and first_keys[b, t] <= s and s < stop_keys[b, t]:
                capped = capped_score(products[r] * scale, soft_cap)
                if soft_cap > 0:
                    slope = ONE - (capped / soft_cap) * (capped / soft_cap)
                distance = np.float32(abs(positions[b, t] - s))
                score = capped + np.float32(bias[b, h, t, s]) - np.float32(slopes[b, h]) * distance
                kept = keep_factor(b, h, t, s, (H, T, S), dropout)
                share = np.float32(math.exp(score - exponent))
                weight, d_score = share * kept, share * (d_weights[r] * kept - deltas[b, h, t])
            weights[row, x], d_biased[row, x], d_scores[row, x] = weight, d_score, d_score * slope * scale

    return tile_gradients


@cache
def query_kernel(D: int):
    """dq, for ceil(T / tile) * H * B blocks."""
    TILE, THREAD_ROWS, ROWS, COLUMNS = tile_sizes(D)
    WIDTH, SIDE = COLUMNS * TILE + 1, TILE + 1
    tile_gradients = _tile_gradients(D)

    def query_gradients(
        g, q, k, v, first_keys, stop_keys, positions, logsumexp, deltas, scale, soft_cap, bias, slopes, threshold,
        keep_scale, seed, dq
    ):  # fmt: skip
        H, T = q.shape[1], q.shape[2]
        ranges, given = (first_keys, stop_keys, positions), (logsumexp, deltas)
        settings, dropout = (scale, soft_cap, bias, slopes), (threshold, keep_scale, seed)
        queries = cuda.shared.array((TILE, WIDTH), np.float32)
        grads = cuda.shared.array((TILE, WIDTH), np.float32)
        keys = cuda.shared.array((TILE, WIDTH), np.float32)
        values = cuda.shared.array((TILE, WIDTH), np.float32)
        unused = cuda.shared.array((TILE, SIDE), np.float32)
        d_scores = cuda.shared.array((TILE, SIDE), np.float32)
        sums = cuda.local.array((ROWS, COLUMNS), np.float32)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        tiles = (T + TILE - 1) // TILE
        start = cuda.blockIdx.x % tiles * TILE
        h = cuda.blockIdx.x // tiles % H
        b = cuda.blockIdx.x // tiles // H
        hk = h // (H // k.shape[1])

        for r in range(ROWS):
            for c in range(COLUMNS):
                sums[r, c] = ZERO
        load_tile(queries, q, b, h, start)
        load_tile(grads, g, b, h, start)
        low, high = key_range(first_keys, stop_keys, b, start, min(start + TILE, T), TILE)
        for j in range(low, high, TILE):
            load_tile(keys, k, b, hk, j)
            load_tile(values, v, b, hk, j)
            cuda.syncthreads()
            loaded = queries, grads, keys, values
            tile_gradients(loaded, b, h, start, j, ranges, given, settings, dropout, unused, unused, d_scores)
            cuda.syncthreads()
            for i in range(TILE):
                for c in range(COLUMNS):
                    element = keys[i, x + c * TILE]
                    for r in range(ROWS):
                        sums[r, c] += d_scores[y + r * THREAD_ROWS, i] * element
            cuda.syncthreads()
        for r in range(ROWS):
            t = start + y + r * THREAD_ROWS
            for c in range(COLUMNS):
                if t < T and x + c * TILE < D:
                    dq[b, h, t, x + c * TILE] = sums[r, c]

    return query_gradients


@cache
def key_kernel(D: int):
    """dk and dv, for ceil(S / tile) * Hk * B blocks."""
    TILE, THREAD_ROWS, ROWS, COLUMNS = tile_sizes(D)
    WIDTH, SIDE = COLUMNS * TILE + 1, TILE + 1
    tile_gradients = _tile_gradients(D)

    def key_gradients(
        g, q, k, v, first_keys, stop_keys, positions, logsumexp, deltas, scale, soft_cap, bias, slopes, threshold,
        keep_scale, seed, dk, dv
    ):  # fmt: skip
        T, Hk, S = q.shape[2], k.shape[1], k.shape[2]
        ranges, given = (first_keys, stop_keys, positions), (logsumexp, deltas)
        settings, dropout = (scale, soft_cap, bias, slopes), (threshold, keep_scale, seed)
        queries = cuda.shared.array((TILE, WIDTH), np.float32)
        grads = cuda.shared.array((TILE, WIDTH), np.float32)
        keys = cuda.shared.array((TILE, WIDTH), np.float32)
        values = cuda.shared.array((TILE, WIDTH), np.float32)
        weights = cuda.shared.array((TILE, SIDE), np.float32)
        d_scores = cuda.shared.array((TILE, SIDE), np.float32)
        d_keys = cuda.local.array((ROWS, COLUMNS), np.float32)
        d_values = cuda.local.array((ROWS, COLUMNS), np.float32)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        tiles = (S + TILE - 1) // TILE
        j = cuda.blockIdx.x % tiles * TILE
        hk = cuda.blockIdx.x // tiles % Hk
        b = cuda.blockIdx.x // tiles // Hk
        group = q.shape[1] // Hk

        for r in range(ROWS):
            for c in range(COLUMNS):
                d_keys[r, c], d_values[r, c] = ZERO, ZERO
        load_tile(keys, k, b, hk, j)
        load_tile(values, v, b, hk, j)
        for h in range(hk * group, (hk + 1) * group):
            for start in range(0, T, TILE):
                low, high = key_range(first_keys, stop_keys, b, start, min(start + TILE, T), TILE)
                if j < low or j >= high:
                    continue  # for all threads of the block: none waits for another
                load_tile(queries, q, b, h, start)
                load_tile(grads, g, b, h, start)
                cuda.syncthreads()
                loaded = queries, grads, keys, values
                tile_gradients(loaded, b, h, start, j, ranges, given, settings, dropout, weights, d_scores, d_scores)
                cuda.syncthreads()
                for i in range(TILE):
                    for c in range(COLUMNS):
                        query, grad = queries[i, x + c * TILE], grads[i, x + c * TILE]
                        for r in range(ROWS):
                            d_keys[r, c] += d_scores[i, y + r * THREAD_ROWS] * query
                            d_values[r, c] += weights[i, y + r * THREAD_ROWS] * grad
                cuda.syncthreads()
        for r in range(ROWS):
            s = j + y + r * THREAD_ROWS
            for c in range(COLUMNS):
                if s < S and x + c * TILE < D:
                    dk[b, hk, s, x + c * TILE] = d_keys[r, c]
                    dv[b, hk, s, x + c * TILE] = d_values[r, c]

    return key_gradients


@cache
def bias_kernel(D: int):
    """d_bias (B or 1, H or 1, T, S), for ceil(S / tile) * ceil(T / tile) * its first two sizes blocks."""
    TILE, THREAD_ROWS, ROWS, COLUMNS = tile_sizes(D)
    WIDTH, SIDE = COLUMNS * TILE + 1, TILE + 1
    tile_gradients = _tile_gradients(D)

    def bias_gradients(
        g, q, k, v, first_keys, stop_keys, positions, logsumexp, deltas, scale, soft_cap, bias, slopes, threshold,
        keep_scale, seed, d_bias
    ):  # fmt: skip
        B, H, T, Hk, S = q.shape[0], q.shape[1], q.shape[2], k.shape[1], k.shape[2]
        ranges, given = (first_keys, stop_keys, positions), (logsumexp, deltas)
        settings, dropout = (scale, soft_cap, bias, slopes), (threshold, keep_scale, seed)
        queries = cuda.shared.array((TILE, WIDTH), np.float32)
        grads = cuda.shared.array((TILE, WIDTH), np.float32)
        keys = cuda.shared.array((TILE, WIDTH), np.float32)
        values = cuda.shared.array((TILE, WIDTH), np.float32)
        unused = cuda.shared.array((TILE, SIDE), np.float32)
        found = cuda.shared.array((TILE, SIDE), np.float32)
        sums = cuda.local.array(ROWS, np.float32)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        tiles, across = (T + TILE - 1) // TILE, (S + TILE - 1) // TILE
        j = cuda.blockIdx.x % across * TILE
        start = cuda.blockIdx.x // across % tiles * TILE
        place = cuda.blockIdx.x // across // tiles
        rows, heads = B // d_bias.shape[0], H // d_bias.shape[1]  # that are added up: all of them, or one

        for r in range(ROWS):
            sums[r] = ZERO
        for one in range(rows * heads):
            b = place // d_bias.shape[1] * rows + one // heads
            h = place % d_bias.shape[1] * heads + one % heads
            load_tile(queries, q, b, h, start)
            load_tile(grads, g, b, h, start)
            load_tile(keys, k, b, h // (H // Hk), j)
            load_tile(values, v, b, h // (H // Hk), j)
            cuda.syncthreads()
            loaded = queries, grads, keys, values
            tile_gradients(loaded, b, h, start, j, ranges, given, settings, dropout, unused, found, unused)
            for r in range(ROWS):
                sums[r] += found[y + r * THREAD_ROWS, x]
            cuda.syncthreads()
        for r in range(ROWS):
            t, s = start + y + r * THREAD_ROWS, j + x
            if t < T and s < S:
                d_bias[place // d_bias.shape[1], place % d_bias.shape[1], t, s] = sums[r]

    return bias_gradients
