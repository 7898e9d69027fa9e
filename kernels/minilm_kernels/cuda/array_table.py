"""Many arrays in one launch: their addresses, and which chunk of which array each block takes, in tables on the card.

The tables are kept for as long as they are asked for again: an optimiser's arrays lie where they lay at the last step,
and then nothing is copied to the card. A recorded graph keeps those that it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..recording import kept
from .launching import PACK_BYTES, address

__all__ = ["CHUNK", "ArrayTable"]

CHUNK = 8192  # elements a block works on: 15,000 blocks for 124 million


@dataclass(frozen=True)
class ArrayTable:
    """`addresses` (columns, arrays), `sizes` (arrays,), each chunk's array, and each array's first chunk."""

    addresses: Any
    sizes: Any
    owner: Any
    first_chunk: Any  # (arrays + 1,): at the end the number of chunks
    chunks: int
    packed: bool  # whether all arrays begin at multiples of a pack's bytes

    @classmethod
    def of(cls, xp, *columns) -> ArrayTable:
        """The table of lists of contiguous arrays; those at one place of the lists have one size."""
        sizes = tuple([array.size for array in columns[0]])
        addresses = tuple([tuple([address(array) for array in arrays]) for arrays in columns])
        device = 0 if xp is np else xp.cuda.runtime.getDevice()
        return kept(_table(xp, device, sizes, addresses))

    @property
    def arguments(self) -> tuple:
        """A kernel's first arguments, as array_table.cuh has them."""
        return self.addresses, self.sizes, self.owner, self.first_chunk, np.int32(len(self.sizes)), np.int32(CHUNK)


@lru_cache(maxsize=64)
def _table(xp, device: int, sizes: tuple[int, ...], addresses: tuple[tuple[int, ...], ...]) -> ArrayTable:
    lengths = np.array(sizes, np.int64)
    chunks = -(-lengths // CHUNK)
    owner = np.repeat(np.arange(len(lengths), dtype=np.int32), chunks)
    first_chunk = np.concatenate([[0], np.cumsum(chunks)]).astype(np.int32)
    packed = all(at % PACK_BYTES == 0 for column in addresses for at in column)
    tables = [xp.asarray(table) for table in (np.array(addresses, np.uint64), lengths, owner, first_chunk)]
    return ArrayTable(*tables, len(owner), packed)
