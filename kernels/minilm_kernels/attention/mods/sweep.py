"""The states of a mask's blocks, from the compiled mask: a row of queries at a time, counting what it leaves seen."""

from __future__ import annotations

import numpy as np

from ...jit import jit
from ...launch import in_parts
from ...simd import LANES, add, call_address, load, select_equal, splat, store, sum_lanes, zeros
from ..contract import BLOCK

__all__ = ["sweep"]

_KEYS = 64 * BLOCK  # at a time: their scores stay in the first cache


@jit(inline=True)
def _block_rows(address, table, states, H, T, S, start, stop):
    """Those numbered start ... stop of all block rows, (b, h, block of queries) in turn."""
    scratch = np.empty(_KEYS, np.float32)
    counts = np.empty(_KEYS // BLOCK, np.float32)
    one = splat(np.float32(1))
    per_head = (T + BLOCK - 1) // BLOCK
    for row in range(start, stop):
        b, h, first_query = row // per_head // H, row // per_head % H, row % per_head * BLOCK
        queries = min(BLOCK, T - first_query)
        for first_key in range(0, S, _KEYS):
            width = min(_KEYS, S - first_key)
            blocks = (width + BLOCK - 1) // BLOCK
            counts[:] = np.float32(0)
            # Scores of zero: what the mask hides becomes -inf, and so counts as little as what lies beyond the keys.
            scratch[width : blocks * BLOCK] = np.float32(-np.inf)
            for t in range(first_query, first_query + queries):
                for i in range(0, width // LANES * LANES, LANES):
                    store(scratch, i, zeros())
                scratch[width // LANES * LANES : width] = np.float32(0)
                call_address(
                    address, scratch, np.int64(0), np.int64(width), np.int64(b), np.int64(h), np.int64(t),
                    np.int64(first_key), True, table,
                )  # fmt: skip
                for block in range(blocks):
                    seen = zeros()
                    for i in range(block * BLOCK, (block + 1) * BLOCK, LANES):
                        seen = add(seen, select_equal(load(scratch, i), zeros(), one, zeros()))
                    counts[block] += sum_lanes(seen)
            for block in range(blocks):
                whole = np.float32(queries * min(BLOCK, width - block * BLOCK))
                state = 0 if counts[block] == 0 else 2 if counts[block] == whole else 1
                states[row, first_key // BLOCK + block] = np.uint8(state)


@jit
def sweep(parts, address, table, states, H, T, S):
    """Fills `states` (B * H * blocks of queries, blocks of keys) by the compiled mask at `address`."""
    in_parts(_block_rows, parts, states.shape[0], (address, table, states, H, T, S))
