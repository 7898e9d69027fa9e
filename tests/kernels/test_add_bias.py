"""add_bias: in place, every implementation like the sum."""

from __future__ import annotations

import numpy as np
import pytest
from minilm_kernels import add_bias, implementations

ALL = [entry.name for entry in implementations("add_bias", device="cpu")]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(128, 128), (131, 127), (4096, 5), (3, 20000)])
@pytest.mark.parametrize("implementation", ALL)
def test_adds_to_every_row_in_place(implementation, shape, dtype):
    random = np.random.default_rng(0)
    x, bias = random.standard_normal(shape).astype(dtype), random.standard_normal(shape[1]).astype(dtype)
    expected = x + bias
    assert add_bias(x, bias, implementation=implementation) is x
    np.testing.assert_array_equal(x, expected)


def test_small_and_strided_arrays_are_numpys():
    wide = np.zeros((300, 200), np.float32)
    assert add_bias(wide[:, ::2], np.ones(100, np.float32)).sum() == 30000
    assert wide.sum() == 30000
    with pytest.raises(ValueError, match="C-contiguous"):
        add_bias(wide[:, ::2], np.ones(100, np.float32), implementation="cpu")
    assert add_bias(np.zeros((0, 3), np.float32), np.ones(3, np.float32)).shape == (0, 3)


def test_nan_stays():
    x = np.zeros((200, 100), np.float32)
    x[7, 3] = np.nan
    add_bias(x, np.ones(100, np.float32), implementation="cpu")
    assert np.argwhere(np.isnan(x)).tolist() == [[7, 3]]


def test_same_bits_on_any_number_of_threads(same_bits):
    x = np.random.default_rng(0).standard_normal((300, 300), np.float32)
    same_bits(lambda: add_bias(x.copy(), x[0], implementation="cpu"))


def test_refuses_what_does_not_fit():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"expected \(N, C\)"):
        add_bias(x[0], x[0])
    with pytest.raises(ValueError, match=r"bias has shape \(2,\)"):
        add_bias(x, x[0, :2])
    with pytest.raises(TypeError, match="bias is float64"):
        add_bias(x, np.zeros(3))
