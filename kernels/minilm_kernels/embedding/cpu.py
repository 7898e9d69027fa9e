"""embedding_backward for the CPU: each thread owns some columns of the table, so that none waits for another.

Every thread walks all indices in order: a column's sums are made in one order, however many threads there are.
"""

from __future__ import annotations

import numpy as np

from ..chunks import SERIAL_BELOW
from ..jit import jit
from ..launch import in_parts
from ..registry import register
from ..threads import get_num_threads
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
    few = g.size < 4 * SERIAL_BELOW  # an addition is cheap
    _add_all(1 if few else max(1, min(get_num_threads(), g.shape[1] // _COLUMNS)), g, indices, out)
    return out


@jit
def _first_outside(indices, rows):
    for i in range(indices.size):
        if not 0 <= indices[i] < rows:
            return i
    return -1


@jit(inline=True)
def _add(g, indices, out, start, stop):
    for i in range(indices.size):
        source, target = g[i, start:stop], out[indices[i], start:stop]
        for j in range(source.size):
            target[j] += source[j]


@jit
def _add_all(parts, g, indices, out):
    in_parts(_add, parts, g.shape[1], (g, indices, out))
