"""embedding_backward for the CPU: each thread owns some columns of the table, so that none waits for another.

Every thread walks all indices in order: a column's sums are made in one order, however many threads there are.
"""

from __future__ import annotations

import numba
import numpy as np

from ..chunks import SERIAL_BELOW, bounds
from ..jit import jit, prange
from ..registry import register
from . import out_of_range

# Columns in a cache line or more: fewer are not worth a thread's walk over the indices.
_COLUMNS = 32


def _out_is_contiguous(g, indices, out):
    return (
        None if out.flags.c_contiguous else "it adds to an out that is C-contiguous: pass numpy.ascontiguousarray(out)"
    )


@register("embedding_backward", name="cpu", device="cpu", dtypes=("float32", "float64"), limits=_out_is_contiguous)
def embedding_backward(g, indices, out):
    g, indices = np.ascontiguousarray(g), np.ascontiguousarray(indices, np.int64)
    wrong = _first_outside(indices, len(out))
    if wrong >= 0:
        raise out_of_range(wrong, int(indices[wrong]), len(out))
    if g.size < 4 * SERIAL_BELOW:  # an addition is cheap
        _add(g, indices, out, 0, g.shape[1])
    else:
        _add_all(g, indices, out, max(1, min(numba.get_num_threads(), g.shape[1] // _COLUMNS)))
    return out


@jit
def _first_outside(indices, rows):
    for i in range(indices.size):
        if not 0 <= indices[i] < rows:
            return i
    return -1


@jit
def _add(g, indices, out, start, stop):
    for i in range(indices.size):
        source, target = g[i, start:stop], out[indices[i], start:stop]
        for j in range(source.size):
            target[j] += source[j]


@jit(parallel=True)
def _add_all(g, indices, out, parts):
    for part in prange(parts):
        start, stop = bounds(part, parts, g.shape[1])
        _add(g, indices, out, start, stop)
