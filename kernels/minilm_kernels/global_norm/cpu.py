"""global_norm for the CPU: one launch for all arrays; each chunk's sum has its place, and they are added in order."""

from __future__ import annotations

import numpy as np

from ..array_table import ArrayTable, chunk_of
from ..chunks import SERIAL_BELOW
from ..jit import jit, prange
from ..registry import register


@register("global_norm", name="cpu", device="cpu", dtypes=("float32", "float64"))
def global_norm(arrays):
    arrays = [np.ascontiguousarray(array) for array in arrays]
    table = ArrayTable.of(arrays)
    sums = np.empty(len(table.owner))
    arguments = table.addresses[0], table.sizes, table.owner, table.first, arrays[0].reshape(-1)[:0], sums
    if table.sizes.sum() < SERIAL_BELOW:
        _squares(*arguments, 0, len(sums))
    else:
        _squares_all(*arguments)
    return float(np.sqrt(sums.sum()))


@jit
def _squares(addresses, sizes, owner, first, like, sums, start, stop):
    for chunk in range(start, stop):
        x = chunk_of(addresses, sizes, owner, first, chunk, like)
        total = 0.0
        for i in range(x.size):
            total += np.float64(x[i]) * np.float64(x[i])
        sums[chunk] = total


@jit(parallel=True)
def _squares_all(addresses, sizes, owner, first, like, sums):
    for chunk in prange(owner.size):
        _squares(addresses, sizes, owner, first, like, sums, np.int64(chunk), np.int64(chunk) + 1)
