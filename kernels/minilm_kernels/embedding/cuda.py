"""embedding_backward for CUDA: the indices are sorted, and each run of equal ones has one writer; no atomics."""

from __future__ import annotations

import numpy as np

from ..cuda.launching import DTYPES, contiguous, pack_width, program, row_threads
from ..registry import array_module, register


def _strided(g, indices, out) -> str | None:
    return None if out.flags.c_contiguous else "it adds in place to C-contiguous arrays, and out is not one"


@register("embedding_backward", name="cuda", device="cuda", dtypes=DTYPES, limits=_strided)
def embedding_backward(g, indices, out):
    xp = array_module(g)
    (g,) = contiguous(xp, g)
    order = xp.argsort(indices, kind="stable").astype(np.int64, copy=False)
    ordered = xp.take(indices, order).astype(np.int64, copy=False)
    columns = out.shape[1]
    width = pack_width(columns, g, out)
    kernel = program(__file__, "embedding.cu", g.dtype, WIDTH=width).kernel("embedding_backward")
    threads = row_threads(columns // width)
    grid = len(indices) if len(out) else 0, -(-columns // (threads * width))
    kernel(grid, threads, (g, ordered, order, out, np.int64(len(indices)), np.int64(len(out)), np.int32(columns)))
    return out
