"""Many arrays in one launch: their addresses, and which chunk of which array each block takes, in tables on the card.

The tables are kept for as long as they are asked for again: an optimiser's arrays lie where they lay at the last step,
and then nothing is copied to the card.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .launching import PACK_BYTES, address

__all__ = ["CHUNK", "ArrayTable"]

CHUNK = 8192  # elements a block works on: 15,000 blocks for 124 million


@dataclass(frozen=True)
class ArrayTable:
    """`addresses` (columns, arrays), `sizes` (arrays,), and for each chunk its array and its first element."""

    addresses: Any
    sizes: Any
    owner: Any
    first: Any
    chunks: int
    packed: bool  # whether all arrays begin at multiples of a pack's bytes

    @classmethod
    def of(cls, xp, *columns) -> ArrayTable:
        """The table of lists of contiguous arrays; those at one place of the lists have one size."""
        sizes = tuple([array.size for array in columns[0]])
        addresses = tuple([tuple([address(array) for array in arrays]) for arrays in columns])
        device = 0 if xp is np else xp.cuda.runtime.getDevice()
        return _table(xp, device, sizes, addresses)


@lru_cache(maxsize=64)
def _table(xp, device: int, sizes: tuple[int, ...], addresses: tuple[tuple[int, ...], ...]) -> ArrayTable:
    lengths = np.array(sizes, np.int64)
    chunks = -(-lengths // CHUNK)
    owner = np.repeat(np.arange(len(lengths), dtype=np.int32), chunks)
    first = (np.arange(len(owner), dtype=np.int64) - np.repeat(np.cumsum(chunks) - chunks, chunks)) * CHUNK
    packed = all(at % PACK_BYTES == 0 for column in addresses for at in column)
    tables = [xp.asarray(table) for table in (np.array(addresses, np.uint64), lengths, owner, first)]
    return ArrayTable(*tables, len(owner), packed)
