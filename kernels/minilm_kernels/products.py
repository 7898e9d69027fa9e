"""Matrix products of NumPy and CuPy arrays by one rule, and the only place that calls cuBLAS itself.

    matmul(a, b)          # a @ b; float16 and bfloat16 are summed up in float32 and stay what they are
    matmul_into(out, a, b, add=True)  # out += a @ b, where out may be float32 while a and b are not
    with tf32():          # float32 products on a GPU run on tensor cores, their inputs rounded to TF32's 10 bits
        matmul(a, b)

CuPy 14's own `@` is not used for floating-point arrays: with more than two axes it takes float16 to float32 and back,
ends the process with bfloat16, and copies what is not contiguous; its TF32 is a switch for the whole process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product

import numpy as np

from . import checks
from .checks import wide
from .cublas import recordable
from .recording import is_recording
from .registry import array_module
from .rows import empty_rows, row_length, rows_are_whole

__all__ = ["is_tf32", "matmul", "matmul_into", "tf32"]

_tf32 = ContextVar("_tf32", default=False)


@contextmanager
def tf32(enabled: bool = True) -> Iterator[None]:
    """Within it float32 products of CuPy arrays run on tensor cores, with inputs rounded to TF32 (compute 8.0 and up).

    The sums stay float32. Products of NumPy arrays and of other dtypes are what they are. Holds for the thread, or the
    asynchronous task, that enters it; `tf32(False)` undoes an outer one.
    """
    token = _tf32.set(enabled)
    try:
        yield
    finally:
        _tf32.reset(token)


def is_tf32() -> bool:
    """Whether float32 products may use TF32 here.

    >>> with tf32():
    ...     is_tf32()
    True
    """
    return _tf32.get()


def matmul(a, b, *, align_rows: bool = False):
    """a @ b over the last two axes, the others broadcast: (..., M, K) times (..., K, N) is (..., M, N).

    Both are arrays of one library with two axes or more, or with one, which counts as a row (left) or a column (right).
    float16 and bfloat16 are summed up in float32 and rounded once, to their own dtype; integers beside floats are
    converted to the floats' dtype, and no product of theirs is float64. On a GPU transposed and strided
    operands are not copied where cuBLAS can read them in place. With `align_rows` each row of a matrix made there
    begins at a multiple of 16 bytes, with a gap before the next one if need be: products that the result is a factor of
    take half the time then, for vocabularies of 50,257 and the like. ValueError for shapes that don't fit.

    >>> matmul(np.ones((2, 1, 3, 4)), np.ones((5, 4, 6))).shape
    (2, 5, 3, 6)
    """
    if a.dtype != b.dtype:
        common = checks.common_dtype(a, b)
        a, b = a.astype(common, copy=False), b.astype(common, copy=False)
    if array_module(a) is np:
        if checks.is_half(a.dtype):  # which BLAS doesn't know
            return (a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype)
        return a @ b
    if a.ndim == 1 or b.ndim == 1:
        y = matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
        y = y[..., 0] if b.ndim == 1 else y
        return y[..., 0] if a.ndim == b.ndim == 1 else y[..., 0, :] if a.ndim == 1 else y
    return _by_cublas(a, b, align_rows) if a.dtype.char in _CUDA_TYPES else a @ b


def matmul_into(out, a, b, *, add: bool = False) -> None:
    """out = a @ b or, with `add`, out += a @ b, in place: of matrices (M, K) and (K, N) into one (M, N).

    `a` and `b` are of one floating dtype, `out` of the same or, where they have 16 bits, float32: a sum of many
    products is rounded once then. Each row's numbers lie side by side in `out`; there may be gaps between the rows.
    ValueError or TypeError for other shapes, dtypes and layouts.

    >>> out = np.ones((1, 1), np.float32)
    >>> matmul_into(out, np.full((1, 2), 3, np.float16), np.full((2, 1), 5, np.float16), add=True)
    >>> out
    array([[31.]], dtype=float32)
    """
    if not a.ndim == b.ndim == out.ndim == 2 or (a.shape[1], out.shape) != (b.shape[0], (a.shape[0], b.shape[1])):
        raise ValueError(
            f"matmul_into of shapes {a.shape} and {b.shape} into {out.shape}; expected (M, K), (K, N) and (M, N)"
        )
    halves = checks.is_half(a.dtype) and out.dtype == np.float32
    if a.dtype.char not in _CUDA_TYPES or a.dtype != b.dtype or not (halves or out.dtype == a.dtype):
        raise TypeError(
            f"matmul_into of {a.dtype} and {b.dtype} into {out.dtype}; expected one floating dtype, or out in float32 "
            "where the others have 16 bits"
        )
    if out.size and not rows_are_whole(out):
        raise ValueError("matmul_into needs an out in which each row's numbers lie side by side: make it C-contiguous")
    if array_module(a) is np:
        a, b = (x.astype(wide(x), copy=False) for x in (a, b))
        out[...] = out + a @ b if add else a @ b
    elif a.shape[1] == 0 and not add:
        out.fill(0)
    elif a.shape[1] and out.size:
        _launch(out, (*out.shape, a.shape[1]), [], _readable(a), _readable(b), add)


# cudaDataType_t by a dtype's character (its name takes microseconds to find): float32, float64, float16, bfloat16.
_CUDA_TYPES = {"f": 0, "d": 1, "e": 2, "E": 14}
# cublasComputeType_t, the dtype of the sums.
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_32F_FAST_TF32 = 68, 70, 77
_DEFAULT_ALGORITHM = -1
# cublasMath_t: sums that are split among blocks are added in float32 too, not in the dtype of the result.
_NO_REDUCED_PRECISION_REDUCTION = 16
_SCALARS = {dtype: (np.ones(1, dtype), np.zeros(1, dtype)) for dtype in ("float32", "float64")}
_MOST_CALLS = 8  # beyond that many products for the batch, a copy that makes one of them is cheaper


def _by_cublas(a, b, align_rows: bool):
    """The product of arrays (..., M, K) and (..., K, N) of one floating dtype."""
    xp = array_module(a)
    (M, K), (K_b, N) = a.shape[-2:], b.shape[-2:]
    if K_b != K:
        raise ValueError(f"matmul of shapes {a.shape} and {b.shape}: the inner lengths, {K} and {K_b}, differ")
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if 0 in (*lead, M, N, K):
        return xp.zeros((*lead, M, N), a.dtype)
    out = empty_rows(xp, M, N, a.dtype) if align_rows and not lead else xp.empty((*lead, M, N), a.dtype)
    axes = _batch_axes(lead, _strides(a, lead), _strides(b, lead))
    if math.prod(n for n, _, _ in axes) > max((n for n, _, _ in axes), default=1) * _MOST_CALLS:
        a, b = (xp.ascontiguousarray(xp.broadcast_to(x, (*lead, *x.shape[-2:]))) for x in (a, b))
        axes = _batch_axes(lead, _strides(a, lead), _strides(b, lead))
    left, right = _readable(a), _readable(b)
    axes = _batch_axes(lead, _strides(left[0], lead), _strides(right[0], lead))  # a copy has other strides
    _launch(out, (M, N, K), axes, left, right, False)
    return out


def _strides(x, lead: tuple[int, ...]) -> list[int]:
    """Elements from one matrix to the next along each axis of the batch; 0 where x is repeated."""
    missing = len(lead) - (x.ndim - 2)
    return [0] * missing + [s // x.itemsize if n > 1 else 0 for n, s in zip(x.shape[:-2], x.strides[:-2])]


def _batch_axes(lead, strides_a, strides_b) -> list[tuple[int, int, int]]:
    """(length, stride of a, stride of b) of the batch's axes, those that can be walked along as one put together."""
    axes: list[tuple[int, int, int]] = []
    for n, s, t in zip(lead, strides_a, strides_b):
        if n == 1:
            continue
        if axes and axes[-1][1] == n * s and axes[-1][2] == n * t:
            axes[-1] = (axes[-1][0] * n, s, t)
        else:
            axes.append((n, s, t))
    return axes


def _readable(x):
    """(array, whether transposed, leading dimension) as cuBLAS reads matrices; a copy where the elements have gaps.

    To cuBLAS, which counts down columns, rows side by side are a transposed matrix: that is the untransposed case here.
    """
    (rows, columns), size = x.shape[-2:], x.itemsize
    down, along = (s // size for s in x.strides[-2:])
    whole = all(s % size == 0 for s in x.strides)
    if whole and (along == 1 or columns == 1) and (rows == 1 or down >= columns):
        return x, 0, down if rows > 1 else columns
    if whole and (down == 1 or rows == 1) and (columns == 1 or along >= rows):
        return x, 1, along if columns > 1 else rows
    return array_module(x).ascontiguousarray(x), 0, columns


def _launch(out, sizes, axes, left, right, add: bool) -> None:
    """out = left right, a call of cuBLAS for the longest axis of the batch, again for each place along the others.

    With `add` it is out += left right.

    The rows of `out` lie one after another, which cuBLAS takes for columns: it computes the transpose, right^T left^T.
    """
    from cupy.cuda import device
    from cupy_backends.cuda.libs import cublas

    (M, N, K), (a, trans_a, lda), (b, trans_b, ldb) = sizes, left, right
    ldc = row_length(out) if out.ndim == 2 else N
    handle = device.get_cublas_handle()
    if is_recording():
        cublas = recordable()
    cublas.setMathMode(handle, _NO_REDUCED_PRECISION_REDUCTION)
    kind, kind_out, size = _CUDA_TYPES[a.dtype.char], _CUDA_TYPES[out.dtype.char], a.itemsize
    double = a.dtype == np.float64
    one, zero = (x.ctypes.data for x in _SCALARS["float64" if double else "float32"])
    beta = one if add else zero  # what is there counts so many times
    compute = _COMPUTE_64F if double else _COMPUTE_32F_FAST_TF32 if kind == 0 and is_tf32() else _COMPUTE_32F
    steps = [math.prod(n for n, _, _ in axes[i + 1 :]) * M * N for i in range(len(axes))]  # of out, along each axis
    longest = max(range(len(axes)), key=lambda i: axes[i][0], default=None)
    count, stride_a, stride_b = (1, 0, 0) if longest is None else axes[longest]
    stride = 0 if longest is None else steps[longest]
    others = [i for i in range(len(axes)) if i != longest]
    for place in product(*(range(axes[i][0]) for i in others)):
        left_at = a.data.ptr + size * sum(p * axes[i][1] for p, i in zip(place, others))
        right_at = b.data.ptr + size * sum(p * axes[i][2] for p, i in zip(place, others))
        out_at = out.data.ptr + out.itemsize * sum(p * steps[i] for p, i in zip(place, others))
        if count == 1:
            cublas.gemmEx(
                handle, trans_b, trans_a, N, M, K, one, right_at, kind, ldb, left_at, kind, lda, beta,
                out_at, kind_out, ldc, compute, _DEFAULT_ALGORITHM
            )  # fmt: skip
        else:
            cublas.gemmStridedBatchedEx(
                handle, trans_b, trans_a, N, M, K, one, right_at, kind, ldb, stride_b, left_at, kind, lda, stride_a,
                beta, out_at, kind_out, ldc, stride, count, compute, _DEFAULT_ALGORITHM
            )  # fmt: skip
