"""cuBLAS by ctypes, as it is called while a graph is recorded: the stand-in's products behind C's conventions."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import fake_cupy.cublas
import numpy as np
import pytest
from minilm_kernels import cublas
from minilm_kernels.products import matmul
from minilm_kernels.recording import is_recording, recording

P, INT, LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
# As cublas_api.h declares them.
GEMM = (P, *[INT] * 5, P, P, INT, INT, P, INT, INT, P, P, *[INT] * 4)
BATCHED = (P, *[INT] * 5, P, P, INT, INT, LONG, P, INT, INT, LONG, P, P, INT, INT, LONG, *[INT] * 3)


@pytest.fixture
def library(cuda_standin, monkeypatch):
    """A library whose products are the stand-in's, and a list of what else it was told."""
    told = []

    def returning_zero(function):
        return lambda *args: function(*args) or 0

    def function(types, implementation):
        return ctypes.CFUNCTYPE(INT, *types)(returning_zero(implementation))

    found = SimpleNamespace(
        cublasGemmEx=function(GEMM, fake_cupy.cublas.gemmEx),
        cublasGemmStridedBatchedEx=function(BATCHED, fake_cupy.cublas.gemmStridedBatchedEx),
        cublasSetMathMode=function((P, INT), fake_cupy.cublas.setMathMode),
        cublasSetStream_v2=function((P, P), lambda handle, stream: told.append(("stream", stream))),
        cublasSetWorkspace_v2=function((P, P, ctypes.c_size_t), lambda *args: told.append(("workspace", args[2]))),
    )
    stream = SimpleNamespace(ptr=2**40)
    monkeypatch.setattr(cuda_standin.cuda, "get_current_stream", lambda: stream, raising=False)
    made = cublas.Recordable(found)
    monkeypatch.setattr("minilm_kernels.products.recordable", lambda: made)
    return told


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("left", "right"), [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4, 5), (3, 5, 6))])
def test_products_are_the_same_while_recording(cuda_standin, library, rng, left, right, dtype):
    a, b = (cuda_standin.asarray(rng.standard_normal(shape).astype(dtype)) for shape in (left, right))
    expected = matmul(a, b).get()
    assert not library
    with recording():
        assert is_recording()
        found = matmul(a, b).get()
    assert not is_recording()
    np.testing.assert_array_equal(found, expected)
    assert library[:2] == [("stream", 2**40), ("workspace", 32 * 2**20)]


def test_a_status_is_an_error():
    function = cublas._function(SimpleNamespace(failing=ctypes.CFUNCTYPE(INT, INT)(lambda _: 7)), "failing", INT)
    with pytest.raises(RuntimeError, match="failing returned status 7"):
        function(1)


def test_a_library_that_is_not_loaded_is_told(monkeypatch):
    monkeypatch.setattr(cublas.Path, "read_text", lambda path: "7f00 r-xp /usr/lib/libc.so.6")
    with pytest.raises(RuntimeError, match=r"libcublas\.so is not among the libraries"):
        cublas.recordable()
