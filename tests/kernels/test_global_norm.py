"""global_norm, every implementation against NumPy's norm in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import global_norm, implementations

CPU = [entry.name for entry in implementations("global_norm", device="cpu")]
SHAPES = st.sampled_from([(), (0,), (1,), (7, 3), (2, 0, 3), (65, 33), (40_000,), (3, 32_768)])


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(SHAPES, max_size=5),
    dtype=st.sampled_from([np.float32, np.float64]),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "readonly"]),
)
def test_is_the_norm_of_all_as_one_vector(implementation, shapes, dtype, layout, laid_out):
    random = np.random.default_rng(0)
    arrays = [np.array(random.standard_normal(shape), dtype) for shape in shapes]
    expected = np.linalg.norm(np.concatenate([np.zeros(1), *(array.astype(np.float64).ravel() for array in arrays)]))
    arrays = [laid_out(array, layout) for array in arrays]
    found = global_norm(arrays, implementation=implementation)
    assert type(found) is float
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("implementation", CPU)
def test_float32_squares_do_not_overflow(implementation):
    assert global_norm([np.full(4, 1e30, np.float32)], implementation=implementation) == pytest.approx(2e30, rel=1e-6)


@pytest.mark.parametrize("implementation", CPU)
def test_nan_and_infinity_are_seen(implementation):
    clean, bad = np.ones(100_000, np.float32), np.ones(100_000, np.float32)
    bad[77_777] = np.inf
    assert global_norm([clean, bad], implementation=implementation) == np.inf
    bad[3] = np.nan
    assert np.isnan(global_norm([clean, bad], implementation=implementation))


@pytest.mark.parametrize("implementation", CPU)
def test_same_bits_on_any_number_of_threads(implementation, same_bits):
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(size).astype(np.float32) for size in (5, 100_003, 40_000)]
    same_bits(lambda: np.float64(global_norm(arrays, implementation=implementation)))


def test_errors_say_what_to_do():
    with pytest.raises(TypeError, match=r"arrays\[1\] is float64; expected float32, as arrays\[0\]: call it for each"):
        global_norm([np.zeros(2, np.float32), np.zeros(2)])
    with pytest.raises(TypeError, match=r"arrays\[0\] is int64; expected floating-point numbers"):
        global_norm([np.arange(3)])
