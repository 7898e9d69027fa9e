"""quantized_matmul, all implementations: one row, a few and many, against float64 and in exact cases."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import dequantize, implementations, quantize, quantized_matmul
from minilm_kernels.block_formats import BLOCK_BYTES

FORMATS = list(BLOCK_BYTES)
NAMES = [entry.name for entry in implementations("quantized_matmul", device="cpu")]
ROWS = [1, 2, 3, 4, 5, 9, 39, 40, 70]  # one; a few, in tiles of four; from 40 on, many


def _problem(M, N, K, format, seed=0):
    random = np.random.default_rng(seed)
    x = random.standard_normal((M, K)).astype(np.float32)
    return x, quantize(random.standard_normal((N, K)).astype(np.float32), format=format)


def _size(x, blocks, format):
    """The largest sum of the sizes of all products."""
    if x.size == 0:
        return 0
    return (np.abs(x.reshape(-1, x.shape[-1])) @ np.abs(dequantize(blocks, format=format)).T).max(initial=0)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("implementation", NAMES)
@settings(max_examples=60, deadline=None)
@given(
    M=st.sampled_from([0, *ROWS]),
    N=st.sampled_from([0, 1, 2, 3, 4, 7, 130]),
    K=st.sampled_from([0, 32, 64, 96, 544]),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "readonly"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_error_law(implementation, format, M, N, K, layout, seed, error_law, laid_out):
    x, blocks = _problem(M, N, K, format, seed)
    size = _size(x, blocks, format)
    x, blocks = laid_out(x, layout), laid_out(blocks, layout)
    error_law(quantized_matmul, x, blocks, implementation=implementation, size=size, format=format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(96,), (1, 96), (2, 1, 96), (2, 3, 96), (2, 5, 7, 96), (2, 0, 96)])
@pytest.mark.parametrize("implementation", NAMES)
def test_any_number_of_dimensions(implementation, shape, format, error_law):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    _, blocks = _problem(1, 5, 96, format)
    error_law(quantized_matmul, x, blocks, implementation=implementation, size=_size(x, blocks, format), format=format)


@pytest.mark.parametrize("M", ROWS)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("implementation", NAMES)
def test_a_unit_vector_picks_a_column_exactly(implementation, format, M):
    """No weight is rounded a second time, and none is taken for its neighbour."""
    _, blocks = _problem(1, 13, 96, format)
    x = np.eye(96, dtype=np.float32)
    y = np.concatenate(
        [quantized_matmul(x[i : i + M], blocks, format=format, implementation=implementation) for i in range(0, 96, M)]
    )
    np.testing.assert_array_equal(y.T, dequantize(blocks, format=format))


@pytest.mark.parametrize("M", [1, 6, 70])
@pytest.mark.parametrize("format", FORMATS)
def test_work_for_all_threads(format, M, error_law, same_bits):
    x, blocks = _problem(M, 2050, 1056, format)  # several panels
    error_law(quantized_matmul, x, blocks, implementation="cpu", size=_size(x, blocks, format), format=format)
    if M < 40:  # the BLAS makes no such promise
        same_bits(lambda: quantized_matmul(x, blocks, format=format, implementation="cpu"))


@pytest.mark.parametrize("M", [1, 6, 70])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("implementation", NAMES)
def test_nan_goes_where_it_must(implementation, format, M):
    x, blocks = _problem(M, 9, 64, format)
    expected = quantized_matmul(x, blocks, format=format, implementation=implementation)
    broken = blocks.copy()
    broken[4, :2] = 0x7E  # the scale of a row's first block
    y = quantized_matmul(x, broken, format=format, implementation=implementation)
    assert np.isnan(y[:, 4]).all()
    np.testing.assert_array_equal(np.delete(y, 4, axis=1), np.delete(expected, 4, axis=1))
    x[0, 63] = np.nan
    y = quantized_matmul(x, blocks, format=format, implementation=implementation)
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1:]).all()


@pytest.mark.parametrize("implementation", NAMES)
def test_zero_weights_give_zero(implementation):
    x = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    for format in FORMATS:
        blocks = quantize(np.zeros((5, 64), np.float32), format=format)
        assert (quantized_matmul(x, blocks, format=format, implementation=implementation) == 0).all()


@pytest.mark.parametrize("M", [1, 6, 70])
def test_the_weight_is_never_held_whole(M):
    N, K = 16384, 1056
    x = np.ones((M, K), np.float32)
    blocks = np.tile(quantize(np.ones(K, np.float32), format="Q4_0"), (N, 1))
    quantized_matmul(x, blocks, format="Q4_0")
    tracemalloc.start()
    quantized_matmul(x, blocks, format="Q4_0")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    results = M * N * 4
    assert peak < results + N * K * 4 / 6


def test_float64_is_multiplied_in_float64():
    x, blocks = _problem(3, 5, 64, "Q8_0")
    y = quantized_matmul(x.astype(np.float64), blocks, format="Q8_0")
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, x.astype(np.float64) @ dequantize(blocks, format="Q8_0", dtype="float64").T)


@pytest.mark.parametrize("format", FORMATS)
def test_a_gguf_files_tensor_as_it_is_mapped(format, tmp_path):
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[format]
    w = np.random.default_rng(0).standard_normal((7, 96)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "test")
    writer.add_tensor("w", gguf.quants.quantize(w, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = gguf.GGUFReader(tmp_path / "model.gguf").tensors[0]
    x = np.random.default_rng(1).standard_normal((2, 96)).astype(np.float32)
    y = quantized_matmul(x, tensor.data, format=tensor.tensor_type.name)
    np.testing.assert_allclose(y, x @ gguf.quants.dequantize(tensor.data, kind).T, rtol=1e-5, atol=1e-5)


def test_errors_say_what_to_do():
    x, blocks = _problem(2, 3, 64, "Q8_0")
    with pytest.raises(ValueError, match=r"x has shape \(2, 40\); .* K a multiple of 32, .* pad its rows with zeros"):
        quantized_matmul(x[:, :40], blocks, format="Q8_0")
    with pytest.raises(
        ValueError, match=r"x has shape \(2, 32\); expected \(\.\.\., 64\), as a row of blocks \(3, 68\)"
    ):
        quantized_matmul(x[:, :32], blocks, format="Q8_0")
    with pytest.raises(ValueError, match=r"blocks has shape \(3, 68\); .* a block of Q4_0 is 18 bytes: is it another"):
        quantized_matmul(x, blocks, format="Q4_0")
    with pytest.raises(ValueError, match="no block format is named 'q8'; there are"):
        quantized_matmul(x, blocks, format="q8")
    with pytest.raises(ValueError, match=r"blocks has shape \(1, 3, 68\); expected \(N, bytes of a row\)"):
        quantized_matmul(x, blocks[None], format="Q8_0")
    with pytest.raises(TypeError, match="blocks is float32; expected an array of uint8"):
        quantized_matmul(x, blocks.astype(np.float32), format="Q8_0")
    with pytest.raises(TypeError, match="x is int32; expected floating-point"):
        quantized_matmul(x.astype(np.int32), blocks, format="Q8_0")
    with pytest.raises(ValueError, match="'cpu': it takes float32, and the arrays are float64"):
        quantized_matmul(x.astype(np.float64), blocks, format="Q8_0", implementation="cpu")
