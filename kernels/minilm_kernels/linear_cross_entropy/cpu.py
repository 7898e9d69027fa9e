"""linear_cross_entropy for the CPU: BLAS for a chunk's products, and one pass over its logits between them."""

from __future__ import annotations

import numpy as np

from ..cross_entropy import cpu as loss
from ..cross_entropy import out_of_range
from ..cross_entropy_with_gradient import cpu as loss_with_gradient
from ..registry import register
from . import rows_of_chunk

_LOGITS_BYTES, _MOST_ROWS = 2**26, 1024  # of a chunk, where the caller names none
# Rows of the weight whose gradient is added to at a time: BLAS can't add through NumPy, so the product lies in between.
_BAND = 4096


@register("linear_cross_entropy", name="cpu", device="cpu", dtypes=("float32",))
def linear_cross_entropy(x, weight, targets, *, bias, g, ignore_index, label_smoothing, chunk):
    _check_targets(targets, len(weight), ignore_index)
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    losses, logsumexp = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    if g is not None:
        dx, dweight = np.empty_like(x, order="C"), np.empty_like(weight, order="C")
        if len(x) == 0:
            dweight[...] = 0
        dbias = None if bias is None else np.zeros_like(bias)
    for rows, logits in _chunks(x, weight, bias, chunk):
        if g is None:
            losses[rows], logsumexp[rows] = loss.cross_entropy(logits, targets[rows], **options)
        else:
            losses[rows], logsumexp[rows], dlogits = loss_with_gradient.cross_entropy_with_gradient(
                logits, targets[rows], g[rows], overwrite=True, **options
            )
            np.matmul(dlogits, weight, out=dx[rows])
            if rows.start == 0:
                np.matmul(dlogits.T, x[rows], out=dweight)
            else:
                _add_product(dweight, dlogits, x[rows])
            if bias is not None:
                dbias += np.ones(len(dlogits), x.dtype) @ dlogits
    return (losses, logsumexp) if g is None else (losses, logsumexp, dx, dweight, dbias)


@register("linear_cross_entropy_backward", name="cpu", device="cpu", dtypes=("float32",))
def linear_cross_entropy_backward(x, g, weight, targets, *, bias, ignore_index, label_smoothing, chunk):
    settings = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "chunk": chunk}
    return linear_cross_entropy(x, weight, targets, bias=bias, g=g, **settings)[2:]


def _chunks(x, weight, bias, chunk):
    """The slices of the rows, each with its logits, always in the same memory."""
    step = rows_of_chunk(chunk, x, weight, logits_bytes=_LOGITS_BYTES, most=_MOST_ROWS)
    memory = np.empty((step, len(weight)), x.dtype)
    for start in range(0, len(x), step or 1):
        rows = slice(start, min(start + step, len(x)))
        logits = np.matmul(x[rows], weight.T, out=memory[: rows.stop - start])
        if bias is not None:
            logits += bias
        yield rows, logits


def _add_product(dweight, dlogits, x):
    """dweight += dlogits^T x."""
    product = np.empty((min(_BAND, len(dweight)), dweight.shape[1]), x.dtype)
    for start in range(0, len(dweight), _BAND):
        band = dweight[start : start + _BAND]
        band += np.matmul(dlogits[:, start : start + _BAND].T, x, out=product[: len(band)])


def _check_targets(targets, classes, ignore_index):
    """ValueError for the first target out of range, by its row among all."""
    wrong = (targets != ignore_index) & ((targets < 0) | (targets >= classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise out_of_range(row, int(targets[row]), classes, ignore_index)
