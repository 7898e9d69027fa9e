"""quantized_matmul for the CPU: three ways, by how many rows of x share the work of unpacking a weight.

One row: as fast as the blocks can be read, or their integers turned into floats (`one_row.py`). A few: each block is
unpacked in registers once for four rows (`few_rows.py`). Many: panels of the weight are unpacked into a buffer that
stays in the cache, and the BLAS multiplies them.
"""

from __future__ import annotations

import numpy as np

from ..block_formats import BLOCK, BLOCK_BYTES
from ..chunks import PARTS, contiguous_rows
from ..dequantize.cpu import FORMAT_NUMBERS, byte_rows, unpack
from ..dequantize.lanes import HALVES
from ..registry import register
from .few_rows import few_rows, in_tiles
from .one_row import one_row

# Rows of x from which a BLAS is faster, though each number of the weight is written to the cache and read again.
MANY = 40
# Numbers of a panel: large enough for the BLAS to be at its best, small enough for the last cache level.
PANEL = 1 << 21
# Numbers of the weight, times rows, below which a second thread would come too late to help.
SERIAL_BELOW = 200_000


@register("quantized_matmul", name="cpu", device="cpu", dtypes=("float32",))
def quantized_matmul(x, blocks, *, format):
    N, K = len(blocks), x.shape[-1]
    shape = (*x.shape[:-1], N)
    if x.size == 0 or N == 0:
        return np.zeros(shape, np.float32)
    rows, blocks, number = contiguous_rows(x), byte_rows(blocks), FORMAT_NUMBERS[format]
    M = len(rows)
    parts = PARTS if M * N * K >= SERIAL_BELOW else 1
    y = np.empty((M, N), np.float32)
    if M == 1:
        one_row(parts, number, HALVES, blocks, rows[0], y[0])
    elif M < MANY:
        few_rows(parts, number, HALVES, blocks, in_tiles(rows), y)
    else:
        _by_panels(rows, blocks, BLOCK_BYTES[format], number, y)
    return y.reshape(shape)


def _by_panels(x, blocks, block_bytes, number, y):
    N, K = len(blocks), x.shape[1]
    step = max(PANEL // K, 1)
    panel = np.empty((min(step, N), K), np.float32)
    for n in range(0, N, step):
        count = min(step, N - n)
        unpack(number, blocks[n : n + count], panel.reshape(-1), count * K // BLOCK)
        np.matmul(x, panel[:count].T, out=y[:, n : n + count])
