"""embedding_backward, every implementation against sums made row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import embedding_backward, implementations
from minilm_kernels.chunks import SERIAL_BELOW

CPU = [entry.name for entry in implementations("embedding_backward", device="cpu")]
COUNT = SERIAL_BELOW // 16  # rows of 130 that are work for all threads


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(0, 40),
    columns=st.sampled_from([0, 1, 7, 64, 129]),
    rows=st.sampled_from([1, 3, 50]),
    dtype=st.sampled_from([np.float32, np.float64]),
    integers=st.sampled_from([np.int64, np.int32, np.uint8]),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "readonly"]),
)
def test_adds_each_row_in_order(implementation, count, columns, rows, dtype, integers, layout, laid_out):
    random = np.random.default_rng(count)
    indices = random.integers(0, rows, count).astype(integers)
    g, out = (
        random.standard_normal((count, columns)).astype(dtype),
        random.standard_normal((rows, columns)).astype(dtype),
    )
    expected = out.copy()
    for i, index in enumerate(indices):
        expected[index] += g[i]
    result = embedding_backward(laid_out(g, layout), laid_out(indices, layout), out, implementation=implementation)
    assert result is out
    np.testing.assert_array_equal(out, expected)  # the order is part of the promise: the same bits


@pytest.mark.parametrize("implementation", CPU)
def test_many_repeats_on_all_threads(implementation, same_bits):
    random = np.random.default_rng(0)
    g, indices = random.standard_normal((COUNT, 130)).astype(np.float32), random.integers(0, 3, COUNT)
    expected = np.zeros((3, 130), np.float32)
    for i, index in enumerate(indices):
        expected[index] += g[i]
    run = lambda: embedding_backward(g, indices, np.zeros((3, 130), np.float32), implementation=implementation)
    np.testing.assert_array_equal(run(), expected)
    same_bits(run)


@pytest.mark.parametrize("implementation", [name for name in CPU if name != "cpu"] + ["auto"])
def test_adds_to_a_view(implementation):
    wide = np.zeros((4, 6), np.float32)
    embedding_backward(np.ones((2, 3), np.float32), np.array([1, 1]), wide[:, ::2], implementation=implementation)
    np.testing.assert_array_equal(wide[1], [2, 0, 2, 0, 2, 0])
    assert wide.sum() == 6


@pytest.mark.parametrize("implementation", CPU)
def test_is_the_gradient_of_a_look_up(implementation, numeric_gradient):
    random = np.random.default_rng(0)
    weight, g, indices = random.standard_normal((5, 3)), random.standard_normal((4, 3)), np.array([4, 0, 4, 1])
    expected = numeric_gradient(lambda: weight[indices], weight, g)
    found = embedding_backward(g, indices, np.zeros_like(weight), implementation=implementation)
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("implementation", CPU)
def test_nan_stays_in_its_row(implementation):
    g = np.ones((3, 4), np.float32)
    g[1, 2] = np.nan
    out = embedding_backward(g, np.array([0, 1, 0]), np.zeros((2, 4), np.float32), implementation=implementation)
    np.testing.assert_array_equal(out, [[2, 2, 2, 2], [1, 1, np.nan, 1]])


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_an_index_out_of_range_is_named_and_nothing_is_added(implementation, wrong):
    out = np.zeros((5, 2))
    message = rf"indices\[2\] is {wrong}; expected a row in \[0, 5\), as out has 5 rows"
    with pytest.raises(IndexError, match=message):
        embedding_backward(np.ones((3, 2)), np.array([0, 1, wrong]), out, implementation=implementation)
    assert not out.any()


def test_errors_say_what_to_do():
    g, out, indices = np.zeros((3, 2)), np.zeros((5, 2)), np.zeros(3, int)
    with pytest.raises(
        ValueError, match=r"shapes \(3, 1, 2\) and \(5, 2\); expected \(N, C\) and \(V, C\): reshape them"
    ):
        embedding_backward(g[:, None], indices, out)
    with pytest.raises(ValueError, match=r"out has shape \(5, 1\); expected \(5, 2\)"):
        embedding_backward(g, indices, out[:, :1])
    with pytest.raises(TypeError, match="out is float32; expected float64"):
        embedding_backward(g, indices, out.astype(np.float32))
    with pytest.raises(ValueError, match=r"indices has shape \(2,\); expected \(3,\)"):
        embedding_backward(g, indices[:2], out)
    with pytest.raises(TypeError, match="indices is float64; expected integers"):
        embedding_backward(g, g[:, 0], out)
    with pytest.raises(ValueError, match="an out that is C-contiguous"):
        embedding_backward(g, indices, np.zeros((2, 5)).T, implementation="cpu")
