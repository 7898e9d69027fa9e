"""linear_cross_entropy for CUDA: cuBLAS for a chunk's products, and cross_entropy's kernel on its logits in between.

The host waits for nothing. A target that names no class makes its row's loss NaN, and the gradients that it enters.
"""

from __future__ import annotations

import numpy as np

from ..add_bias.cuda import add_bias
from ..checks import wide
from ..column_sums.cuda import sums_of_columns
from ..cross_entropy.cuda import loss_and_gradient
from ..cuda.launching import DTYPES, contiguous
from ..products import matmul_into
from ..registry import array_module, register
from ..rows import empty_rows
from . import rows_of_chunk

# Of a chunk's logits: 5,000 rows of 50,257 in 16 bits. With each chunk the weight's gradient is read and written again,
# 8 bytes an element in float32, where a row's three products are 6 operations an element: at 300 operations to a byte,
# the ratio of an H100, that is the time of 400 rows. So much memory is little there.
_LOGITS_BYTES = 2**29


@register("linear_cross_entropy", name="cuda", device="cuda", dtypes=DTYPES)
def linear_cross_entropy(x, weight, targets, *, bias, g, ignore_index, label_smoothing, chunk):
    xp = array_module(x)
    (g,), targets = contiguous(xp, g), xp.ascontiguousarray(targets, dtype=np.int64)
    losses, logsumexp = (xp.empty(len(x), np.float32) for _ in range(2))
    step = rows_of_chunk(chunk, x, weight, logits_bytes=_LOGITS_BYTES)
    memory = empty_rows(xp, step, len(weight), x.dtype)
    sums = None if g is None else _Sums(x, weight, bias, several=step < len(x))
    for start in range(0, len(x), step or 1):
        rows = slice(start, start + step)
        logits = memory[: len(x[rows])]
        matmul_into(logits, x[rows], weight.T)
        if bias is not None:
            add_bias(logits, bias)
        found, settings = (losses[rows], logsumexp[rows]), (ignore_index, label_smoothing)
        if g is None:
            loss_and_gradient(logits, targets[rows], None, None, *found, None, *settings)
        else:  # which takes the logits' place
            loss_and_gradient(logits, targets[rows], g[rows], None, *found, logits, *settings)
            sums.add(rows, logits)
    return (losses, logsumexp) if g is None else (losses, logsumexp, *sums.rounded())


@register("linear_cross_entropy_backward", name="cuda", device="cuda", dtypes=DTYPES)
def linear_cross_entropy_backward(x, g, weight, targets, *, bias, ignore_index, label_smoothing, chunk):
    settings = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "chunk": chunk}
    return linear_cross_entropy(x, weight, targets, bias=bias, g=g, **settings)[2:]


class _Sums:
    """The gradients: dx chunk by chunk, the other two summed over chunks, of which there may be one."""

    def __init__(self, x, weight, bias, *, several: bool) -> None:
        xp = array_module(x)
        self.x, self.weight, self.bias = x, weight, bias
        dtype = wide(x) if several else x.dtype  # sums of 16 bits are rounded once
        self.dx = xp.empty(x.shape, x.dtype)
        self.dweight = (xp.empty if len(x) else xp.zeros)(weight.shape, dtype)
        self.dbias = xp.zeros(len(weight), dtype) if bias is not None else None

    def add(self, rows: slice, dlogits) -> None:
        matmul_into(self.dx[rows], dlogits, self.weight)
        matmul_into(self.dweight, dlogits.T, self.x[rows], add=rows.start > 0)
        if self.bias is not None:
            self.dbias += sums_of_columns(dlogits, self.dbias.dtype)

    def rounded(self) -> tuple:
        """(dx, dweight, dbias), dbias None without a bias."""
        found = self.dx, self.dweight, self.dbias
        return tuple([None if part is None else part.astype(self.x.dtype, copy=False) for part in found])
