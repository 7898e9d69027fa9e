"""cuBLAS' products on the host: what is read and written where is just what the arguments say."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import ml_dtypes
import numpy as np

from .transfers import transfers

__all__ = ["Calls", "calls", "gemmEx", "gemmStridedBatchedEx", "recordable", "setMathMode"]

_DTYPES = {0: np.dtype("float32"), 1: np.dtype("float64"), 2: np.dtype("float16"), 14: np.dtype(ml_dtypes.bfloat16)}
_COMPUTE = {68: np.float32, 77: np.float32, 70: np.float64}
# (A's and B's type, C's) for each compute type: of what cublasGemmEx's table in the documentation allows, what we use.
_ALLOWED = {68: {(0, 0), (2, 2), (2, 0), (14, 14), (14, 0)}, 77: {(0, 0)}, 70: {(1, 1)}}


class Calls(list):
    """(compute type, number of products) of each call so far."""


calls = Calls()


def setMathMode(handle: int, mode: int) -> None:
    assert handle == 1
    assert mode == 16  # sums in parts are added in float32, too


def gemmEx(handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, compute, algo):
    """C = op(A) op(B) + beta C, all of them counted down columns. As CuPy's, not while a stream is capturing."""
    transfers.refuse_cublas()
    _one(handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, compute, algo)


def gemmStridedBatchedEx(*args):
    """`gemmEx` for a row of matrices, each a number of elements behind the one before it."""
    transfers.refuse_cublas()
    _gemm(*args)


def _gemm(
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc,
    strideC, batchCount, computeType, algo
):  # fmt: skip
    assert handle == 1
    assert min(m, n, k, batchCount) >= 1
    assert lda >= (k if transa else m)  # what cuBLAS asks for, else CUBLAS_STATUS_INVALID_VALUE
    assert ldb >= (n if transb else k)
    assert ldc >= m
    assert Atype == Btype
    assert (Atype, Ctype) in _ALLOWED[computeType]  # else CUBLAS_STATUS_NOT_SUPPORTED
    for address, kind in ((A, Atype), (B, Btype), (C, Ctype)):
        assert address % _DTYPES[kind].itemsize == 0
    sums = _COMPUTE[computeType]
    assert _number(alpha, sums) == 1
    beta = _number(beta, sums)
    assert beta in (0, 1)
    calls.append((computeType, batchCount))
    for i in range(batchCount):
        left = _matrix(A, Atype, (k, m) if transa else (m, k), lda, i * strideA)
        right = _matrix(B, Btype, (n, k) if transb else (k, n), ldb, i * strideB)
        found = (left.T if transa else left).astype(sums) @ (right.T if transb else right).astype(sums)
        out = _matrix(C, Ctype, (m, n), ldc, i * strideC)
        out[...] = (found + out.astype(sums) if beta else found).astype(_DTYPES[Ctype])  # of 0 times NaN there is none


def _number(address: int, dtype) -> float:
    return (ctypes.c_double if dtype == np.float64 else ctypes.c_float).from_address(address).value


def _matrix(address: int, kind: int, shape: tuple[int, int], leading: int, offset: int) -> np.ndarray:
    """The matrix at an address, its columns `leading` elements apart."""
    dtype, (rows, columns) = _DTYPES[kind], shape
    count = leading * (columns - 1) + rows
    memory = (ctypes.c_ubyte * (count * dtype.itemsize)).from_address(address + offset * dtype.itemsize)
    flat = np.frombuffer(memory, dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, (dtype.itemsize, leading * dtype.itemsize))


def _one(handle, ta, tb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, compute, algo) -> None:
    _gemm(
        handle, ta, tb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1, compute, algo
    )  # fmt: skip


# The same past CuPy, in the place of `minilm_kernels.cublas.recordable()`.
recordable = SimpleNamespace(setMathMode=setMathMode, gemmEx=_one, gemmStridedBatchedEx=_gemm)
