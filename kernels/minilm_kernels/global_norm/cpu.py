"""global_norm for the CPU: one launch for all arrays; each chunk's sum has its place, and they are added in order."""

from __future__ import annotations

import numpy as np

from ..array_table import ArrayTable, chunk_of
from ..chunks import parts_for
from ..jit import jit
from ..launch import in_parts
from ..registry import register


@register("global_norm", name="cpu", device="cpu", dtypes=("float32", "float64"))
def global_norm(arrays):
    arrays = [np.ascontiguousarray(array) for array in arrays]
    table = ArrayTable.of(arrays)
    sums = np.empty(len(table.owner))
    chunks = table.addresses[0], table.sizes, table.owner, table.first, arrays[0].reshape(-1)[:0]
    _squares_all(parts_for(table.sizes.sum()), *chunks, sums)
    return float(np.sqrt(sums.sum()))


@jit(inline=True)
def _squares(addresses, sizes, owner, first, like, sums, start, stop):
    for chunk in range(start, stop):
        x = chunk_of(addresses, sizes, owner, first, chunk, like)
        total = 0.0
        for i in range(x.size):
            total += np.float64(x[i]) * np.float64(x[i])
        sums[chunk] = total


@jit
def _squares_all(parts, addresses, sizes, owner, first, like, sums):
    in_parts(_squares, parts, owner.size, (addresses, sizes, owner, first, like, sums))
