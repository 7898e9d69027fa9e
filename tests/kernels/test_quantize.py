"""quantize and dequantize: blocks worked out by hand, the gguf package, and all implementations alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import dequantize, implementations, quantize
from minilm_kernels.block_formats import BLOCK_BYTES
from minilm_kernels.quantize import cuda as quantize_cuda

from minilm import backend

FORMATS = list(BLOCK_BYTES)
QUANTIZE = [entry.name for entry in implementations("quantize", device="cpu")]
DEQUANTIZE = [entry.name for entry in implementations("dequantize", device="cpu")]
ONE = [0x00, 0x3C]  # float16's bytes, lowest first
MINUS_ONE = [0x00, 0xBC]
SHAPES = [(0, 32), (3, 0), (32,), (1, 32), (70, 64), (2, 3, 96), (300, 288)]  # the last is work for all threads


def _row(*first):
    """A block that begins with these numbers and goes on with zeros."""
    return np.array([*first, *[0] * (32 - len(first))], np.float32)


def _numbers(shape, seed=0):
    """Rows of very different size, some zero or tiny, with ties between the largest, and halves to be rounded."""
    random = np.random.default_rng(seed)
    w = random.standard_normal(shape).astype(np.float32)
    w = w * (10.0 ** random.integers(-6, 3, (*shape[:-1], 1))).astype(np.float32)
    kind = random.integers(0, 6, (*shape[:-1], 1))
    w = np.where(kind == 0, np.float32(0), w)
    w = np.where(kind == 1, np.float32(1e-41) * np.sign(w), w)
    w = np.where(kind == 2, np.round(w * 2) / 2, w)
    return np.where(kind == 3, np.sign(w) * np.float32(0.75), w)


@pytest.mark.parametrize("implementation", QUANTIZE)
def test_q8_0_by_hand(implementation):
    w = _row(127, -127, 0.5, -0.5, 1.5, -2.5, 2.4999, 0.49999997)
    expected = [*ONE, 127, 129, 1, 255, 2, 253, 2, 0, *[0] * 24]
    assert quantize(w, format="Q8_0", implementation=implementation).tolist() == expected


@pytest.mark.parametrize("implementation", QUANTIZE)
def test_q4_0_by_hand(implementation):
    w = _row(-8, 7, 0.5, -0.5, 0.49, 7.9, 1, 2, *[0] * 8, 3, -8, 8)
    first = [0, 15, 9, 8, 8, 15, 9, 10, *[8] * 8]
    second = [11, 0, 15, *[8] * 13]
    expected = [*ONE, *(low | high << 4 for low, high in zip(first, second))]
    assert quantize(w, format="Q4_0", implementation=implementation).tolist() == expected
    # Of -8 and 8 the first decides the sign of the scale, and only one of them can be held.
    flipped = quantize(-w, format="Q4_0", implementation=implementation)
    assert flipped[:2].tolist() == MINUS_ONE
    np.testing.assert_array_equal(dequantize(flipped, format="Q4_0")[[0, 18]], [8, -7])


@pytest.mark.parametrize("implementation", QUANTIZE)
def test_q4_1_by_hand(implementation):
    w = _row(-1, 14, -0.5, -0.51, 3.5, *[-1] * 11, 5, -1)
    w[18:] = 2
    first = [0, 15, 1, 0, 5, *[0] * 11]
    second = [6, 0, *[3] * 14]
    expected = [*ONE, *MINUS_ONE, *(low | high << 4 for low, high in zip(first, second))]
    assert quantize(w, format="Q4_1", implementation=implementation).tolist() == expected


@pytest.mark.parametrize("implementation", DEQUANTIZE)
def test_dequantize_by_hand(implementation):
    run = lambda block, format: dequantize(np.array(block, np.uint8), format=format, implementation=implementation)
    nibbles = list(range(0xF0, 0, -15))  # low 0, 1, ... 15; high 15, 14, ... 0
    ramp = np.arange(16, dtype=np.float32)
    np.testing.assert_array_equal(
        run([0x00, 0x40, *range(120, 152)], "Q8_0"), [*range(240, 256, 2), *range(-256, -208, 2)]
    )
    np.testing.assert_array_equal(run([*MINUS_ONE, *nibbles], "Q4_0"), np.r_[8 - ramp, ramp - 7])
    np.testing.assert_array_equal(run([*ONE, 0x00, 0x38, *nibbles], "Q4_1"), np.r_[ramp, 15 - ramp] + 0.5)


@pytest.mark.parametrize("implementation", DEQUANTIZE)
def test_every_float16_scale(implementation):
    """Subnormal ones, infinities and NaN too."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    blocks = np.ones((len(halves), 34), np.uint8)
    blocks[:, :2] = halves[:, None].view(np.uint8)
    with np.errstate(invalid="ignore"):  # some are signalling NaN
        numbers = dequantize(blocks, format="Q8_0", implementation=implementation)
    np.testing.assert_array_equal(
        numbers, np.broadcast_to(halves.view(np.float16)[:, None].astype(np.float32), (1 << 16, 32))
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("implementation", QUANTIZE)
@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "readonly"]),
    dtype=st.sampled_from([np.float32, np.float64, np.float16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_same_bytes_as_the_reference(implementation, format, shape, layout, dtype, seed, laid_out):
    if implementation == "cpu" and dtype != np.float32:
        return  # refused, which the registry's tests cover
    w = laid_out(_numbers(shape, seed).clip(-60000, 60000).astype(dtype), layout)
    before = w.copy()
    blocks = quantize(w, format=format, implementation=implementation)
    np.testing.assert_array_equal(w, before)
    assert blocks.dtype == np.uint8
    assert blocks.shape == (*shape[:-1], shape[-1] // 32 * BLOCK_BYTES[format])
    np.testing.assert_array_equal(blocks, quantize(w, format=format, implementation="reference"))
    for name in DEQUANTIZE:
        numbers = dequantize(laid_out(blocks, layout), format=format, implementation=name)
        assert (numbers.dtype, numbers.shape) == (np.float32, shape)
        np.testing.assert_array_equal(numbers, dequantize(blocks, format=format, implementation="reference"))


def _for_cuda(dtype):
    """Rows of every kind in blocks that no warp divides, negative zeros, and thousands of all the 16-bit numbers."""
    yield _numbers((37, 96), 5).astype(dtype)
    yield np.full((1, 32), -0.0, dtype)
    if dtype != np.float32:
        every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
        every = every[np.abs(every.astype(np.float32)) <= 65504]
        yield every[: 3 << 13].reshape(-1, 32)
        yield np.random.default_rng(7).permutation(every)[: 1 << 14].reshape(-1, 64)


DTYPES = [np.float32, np.float16, backend.bfloat16()]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_the_same_bytes_from_the_cuda_kernel(emulated, format, dtype):
    for number, w in enumerate(_for_cuda(dtype)):
        with emulated(descending=number % 2 == 1):
            blocks = quantize_cuda.quantize(w, format=format)
        np.testing.assert_array_equal(blocks, quantize(w, format=format, implementation="reference"))


@pytest.mark.gpu
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_the_same_bytes_on_a_gpu(format, dtype):
    for w in _for_cuda(dtype):
        blocks = quantize(backend.to_device(w, "cuda"), format=format, implementation="cuda")
        np.testing.assert_array_equal(backend.to_numpy(blocks), quantize(w, format=format, implementation="reference"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("implementation", QUANTIZE)
def test_the_same_bytes_as_gguf(implementation, format):
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[format]
    for seed, shape in enumerate([(1, 32), (300, 288), (2, 3, 96)]):
        w = _numbers(shape, seed)
        w = np.where(np.abs(w) < 1e-35, np.float32(0), w)  # gguf divides by zero there
        blocks = gguf.quants.quantize(w, kind)
        np.testing.assert_array_equal(quantize(w, format=format, implementation=implementation), blocks)
        expected = gguf.quants.dequantize(blocks, kind)
        for name in DEQUANTIZE:
            np.testing.assert_array_equal(dequantize(blocks, format=format, implementation=name), expected)


@pytest.mark.parametrize("format", FORMATS)
def test_rounds_to_the_nearest_of_the_formats_numbers(format):
    w = np.random.default_rng(0).uniform(-1, 1, (50, 64)).astype(np.float32)
    steps = (
        np.abs(w).reshape(50, 2, 32).max(axis=-1, keepdims=True)
        * {"Q8_0": 1 / 127, "Q4_0": 1 / 8, "Q4_1": 2 / 15}[format]
    )
    error = np.abs(dequantize(quantize(w, format=format), format=format) - w).reshape(50, 2, 32)
    # Q4_0 has no 8: what would round to it is a whole step off. The scale is rounded too, which Q8_0 multiplies by 127.
    assert (error <= steps * ((1 if format == "Q4_0" else 0.5) + 0.07)).all()


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_bits_on_any_number_of_threads(format, same_bits):
    w = _numbers((300, 288))
    blocks = quantize(w, format=format)
    same_bits(lambda: quantize(w, format=format, implementation="cpu"))
    same_bits(lambda: dequantize(blocks, format=format, implementation="cpu"))


@pytest.mark.parametrize("format", FORMATS)
def test_dequantize_to_other_dtypes(format):
    blocks = quantize(_numbers((4, 64)), format=format)
    single = dequantize(blocks, format=format)
    half = dequantize(blocks, format=format, dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, single.astype(np.float16))
    double = dequantize(blocks, format=format, dtype=np.float64)
    assert double.dtype == np.float64
    np.testing.assert_allclose(double, single, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="'cpu': it makes float32, and dtype is float64"):
        dequantize(blocks, format=format, dtype="float64", implementation="cpu")


def test_errors_say_what_to_do():
    w = np.zeros((2, 64), np.float32)
    with pytest.raises(ValueError, match="no block format is named 'Q5_0'; there are: Q8_0, Q4_0, Q4_1"):
        quantize(w, format="Q5_0")
    with pytest.raises(ValueError, match=r"weight has shape \(2, 40\); expected .* a multiple of 32.*pad its rows"):
        quantize(w[:, :40], format="Q8_0")
    with pytest.raises(TypeError, match="weight is int64; expected floating-point"):
        quantize(w.astype(np.int64), format="Q8_0")
    for bad in (np.nan, -np.inf, 7e4):
        w[1, 40] = bad
        with pytest.raises(ValueError, match="expected finite numbers within float16's 65504"):
            quantize(w, format="Q4_1")
    with pytest.raises(ValueError, match=r"blocks has shape \(2, 36\); .* a block of Q8_0 is 34 bytes: is it another"):
        dequantize(np.zeros((2, 36), np.uint8), format="Q8_0")
    with pytest.raises(TypeError, match=r"blocks is int8; expected an array of uint8.*blocks.view\('uint8'\)"):
        dequantize(np.zeros((2, 34), np.int8), format="Q8_0")
    with pytest.raises(TypeError, match="blocks is bytes; expected an array of uint8"):
        dequantize(b"34 bytes", format="Q8_0")
