"""log_softmax and its gradient, every implementation against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import implementations, log_softmax, log_softmax_backward
from minilm_kernels.chunks import SERIAL_BELOW

CPU = [entry.name for entry in implementations("log_softmax", device="cpu")]


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(0,), (1,), (7,), (0, 5), (3, 0), (3, 1), (4, 17), (2, 3, 65), (2, 0, 3), (5, 33)]),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, shape, layout, seed, error_law, laid_out):
    random = np.random.default_rng(seed)
    x = laid_out((6 * random.standard_normal(shape)).astype(np.float32), layout)
    g = laid_out(random.standard_normal(shape).astype(np.float32), layout)
    error_law(log_softmax, x, implementation=implementation)
    error_law(log_softmax_backward, g, log_softmax(x), implementation=implementation)


@pytest.mark.parametrize("implementation", CPU)
def test_large_arrays(implementation, error_law):
    random = np.random.default_rng(0)
    x, g = (random.standard_normal((70, SERIAL_BELOW // 64 + 1), dtype=np.float32) for _ in range(2))
    error_law(log_softmax, x, implementation=implementation)
    error_law(log_softmax_backward, g, log_softmax(x), implementation=implementation)


def test_any_axis(error_law):
    random = np.random.default_rng(0)
    x, g = (random.standard_normal((3, 4, 5), dtype=np.float32) for _ in range(2))
    for axis in (0, 1, 2, -1, -3):
        y = log_softmax(x, axis=axis)
        np.testing.assert_allclose(np.exp(y).sum(axis), 1, rtol=1e-6)
        np.testing.assert_allclose(y, np.moveaxis(log_softmax(np.moveaxis(x, axis, -1)), -1, axis), rtol=1e-6)
        error_law(log_softmax_backward, g, y, axis=axis, implementation="auto")


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("columns", [3, SERIAL_BELOW // 4])
def test_rows_with_nothing_or_everything_masked(implementation, columns):
    x = np.zeros((4, columns), np.float32)
    x[0] = -np.inf  # masked whole
    x[1, 1:] = -np.inf
    x[2] = 1e30
    x[3, 1] = np.nan
    y = log_softmax(x, implementation=implementation)
    assert np.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1], np.where(np.arange(columns) == 0, 0, -np.inf))
    np.testing.assert_allclose(y[2], -np.log(columns), rtol=1e-6)
    assert np.isnan(y[3]).all()
    negative_nan = np.array([[0, np.copysign(np.float32(np.nan), -1)]], np.float32)
    assert np.isnan(log_softmax(negative_nan, implementation=implementation)).all()


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("shift", [0, 3e4, -1e7])
def test_a_shift_of_all_costs_no_digits(implementation, shift):
    x = np.arange(-8, 8, dtype=np.float32)[None]
    y = log_softmax(x, implementation=implementation)
    np.testing.assert_array_equal(log_softmax(x + np.float32(shift), implementation=implementation), y)


def test_reference_gradient_is_the_finite_difference(numeric_gradient):
    random = np.random.default_rng(0)
    x, g = random.standard_normal((2, 3, 5)), random.standard_normal((2, 3, 5))
    expected = numeric_gradient(lambda: log_softmax(x), x, g)
    np.testing.assert_allclose(log_softmax_backward(g, log_softmax(x)), expected, atol=1e-8)


@pytest.mark.parametrize("implementation", CPU)
def test_agrees_with_torch(implementation):
    torch = pytest.importorskip("torch")
    x = torch.randn(9, 301, generator=torch.manual_seed(0), requires_grad=True)
    g = torch.randn(9, 301, generator=torch.manual_seed(1))
    y = torch.log_softmax(x, -1)
    y.backward(g)
    mine = log_softmax(x.detach().numpy(), implementation=implementation)
    np.testing.assert_allclose(mine, y.detach().numpy(), rtol=3e-6, atol=1e-8)
    dx = log_softmax_backward(g.numpy(), mine, implementation=implementation)
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_same_bits_on_any_number_of_threads(same_bits):
    x = np.random.default_rng(0).standard_normal((SERIAL_BELOW // 128, 129)).astype(np.float32)
    same_bits(lambda: (log_softmax(x), log_softmax_backward(x, log_softmax(x))))


def test_errors_say_what_to_do():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"axis is 2; an array of shape \(2, 3\) has axes -2 to 1"):
        log_softmax(x, axis=2)
    with pytest.raises(
        ValueError, match=r"can't run on these arguments\. 'cpu': it works along the last axis, 1, not 0"
    ):
        log_softmax(x, axis=0, implementation="cpu")
    with pytest.raises(TypeError, match="x is int64; expected floating-point numbers"):
        log_softmax(np.arange(3))
    with pytest.raises(ValueError, match=r"g has shape \(3,\); expected \(2, 3\)"):
        log_softmax_backward(np.zeros(3, np.float32), x)
