"""The vector values of `minilm_kernels.simd`, each against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from minilm_kernels import simd  # noqa: E402
from minilm_kernels.jit import FAST_MATH  # noqa: E402

jit = numba.njit(error_model="numpy", fastmath=FAST_MATH)  # as the kernels are compiled, without the disk cache


@jit
def _exp2(x, y):
    for i in range(0, x.size, simd.LANES):
        simd.store(y, i, simd.exp2(simd.load(x, i)))


def test_exp2():
    exact = np.linspace(-126, 126.9, 80_000, dtype=np.float32)
    y = np.empty_like(exact)
    _exp2(exact, y)
    expected = np.exp2(exact.astype(np.float64))
    assert np.abs(y / expected - 1).max() < 1.2e-7
    whole = np.arange(-120, 120, dtype=np.float32)
    y = np.empty_like(whole)
    _exp2(whole, y)
    np.testing.assert_array_equal(y, np.exp2(whole))
    special = np.array([np.nan, -np.inf, -126.5, -1e30, 0, -0.0, -127, 1], np.float32)
    y = np.empty_like(special)
    _exp2(special, y)
    np.testing.assert_array_equal(y, np.array([np.nan, 0, 0, 0, 1, 1, 0, 2], np.float32))


@jit
def _arithmetic(x, y, z, out):
    a, b, c = simd.load(x, 0), simd.load(y, 0), simd.load(z, 0)
    simd.store(out, 0, simd.add(a, b))
    simd.store(out, 8, simd.subtract(a, b))
    simd.store(out, 16, simd.multiply(a, b))
    simd.store(out, 24, simd.fma(a, b, c))
    simd.store(out, 32, simd.maximum(a, b))
    simd.store(out, 40, simd.splat(x[3]))
    simd.store(out, 48, simd.broadcast(x, 5))
    simd.store(out, 56, simd.zeros())
    simd.store(out, 64, simd.select_equal(a, b, b, c))
    return simd.sum_lanes(a), simd.max_lanes(a)


def test_lane_by_lane():
    x, y, z = np.random.default_rng(0).integers(-4, 5, (3, 8)).astype(np.float32)  # small integers: sums are exact
    out = np.empty((9, 8), np.float32)
    total, largest = _arithmetic(x, y, z, out.reshape(-1))
    expected = [x + y, x - y, x * y, x * y + z, np.maximum(x, y), x[3], x[5], 0, np.where(x == y, y, z)]
    for row, value in zip(out, expected):
        np.testing.assert_array_equal(row, np.broadcast_to(value, 8))
    assert (total, largest) == (x.sum(), x.max())


@jit
def _first_lanes(x, count, y):
    simd.store(y, 0, simd.first_lanes(simd.load(x, 0), count, np.float32(-1)))


@pytest.mark.parametrize("count", [-3, 0, 1, 5, 8, 100])
def test_first_lanes(count):
    x, y = np.arange(8, dtype=np.float32), np.empty(8, np.float32)
    _first_lanes(x, count, y)
    np.testing.assert_array_equal(y, np.where(np.arange(8) < count, x, -1))


@jit
def _transpose_block(array, source, source_step, target, target_step):
    simd.transpose(array, source, source_step, target, target_step)


def test_transpose():
    array = np.arange(200, dtype=np.float32)
    source = np.lib.stride_tricks.as_strided(array[3:], (8, 8), (40, 4)).copy()
    _transpose_block(array, 3, 10, 100, 9)
    target = np.lib.stride_tricks.as_strided(array[100:], (8, 8), (36, 4))
    np.testing.assert_array_equal(target, source.T)
    _transpose_block(array, 100, 9, 100, 9)  # in place
    np.testing.assert_array_equal(target, source)


def test_other_dtypes_are_refused():
    with pytest.raises(numba.TypingError):
        _exp2(np.zeros(8), np.zeros(8))


def test_an_error_in_a_function_called_by_address_is_raised():
    array = numba.types.Array(numba.types.int64, 1, "C")

    @numba.njit
    def double(x):
        if x[0] < 0:
            raise ValueError("negative")
        x[0] *= 2

    double.compile((array,))
    compiled = double.overloads[(array,)]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)

    @numba.njit
    def call(address, x):
        simd.call_address(address, x)

    x = np.array([21])
    call(address, x)
    assert x[0] == 42
    with pytest.raises(ValueError, match="negative"):
        call(address, np.array([-1]))
