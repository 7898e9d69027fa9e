"""softmax and its gradient, every implementation against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import implementations, softmax, softmax_backward
from minilm_kernels.chunks import SERIAL_BELOW

CPU = [entry.name for entry in implementations("softmax", device="cpu")]


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
    error_law(softmax, x, implementation=implementation)
    error_law(softmax_backward, g, softmax(x), implementation=implementation, size=1.0)


@pytest.mark.parametrize("implementation", CPU)
def test_large_arrays(implementation, error_law):
    random = np.random.default_rng(0)
    x, g = (random.standard_normal((70, SERIAL_BELOW // 64 + 1), dtype=np.float32) for _ in range(2))
    error_law(softmax, x, implementation=implementation)
    error_law(softmax_backward, g, softmax(x), implementation=implementation, size=1.0)


def test_any_axis(error_law):
    random = np.random.default_rng(0)
    x, g = (random.standard_normal((3, 4, 5), dtype=np.float32) for _ in range(2))
    for axis in (0, 1, 2, -1, -3):
        y = softmax(x, axis=axis)
        np.testing.assert_allclose(y.sum(axis), 1, rtol=1e-6)
        np.testing.assert_allclose(y, np.moveaxis(softmax(np.moveaxis(x, axis, -1)), -1, axis), rtol=1e-6)
        error_law(softmax_backward, g, y, axis=axis, implementation="auto")


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("columns", [3, SERIAL_BELOW // 4])
def test_rows_with_nothing_or_everything_masked(implementation, columns):
    x = np.zeros((4, columns), np.float32)
    x[0] = -np.inf  # masked whole
    x[1, 1:] = -np.inf
    x[2] = 1e30
    x[3, 1] = np.nan
    y = softmax(x, implementation=implementation)
    np.testing.assert_array_equal(y[0], 0)
    np.testing.assert_array_equal(y[1], np.eye(1, columns)[0])
    np.testing.assert_allclose(y[2], 1 / columns, rtol=1e-6)
    assert np.isnan(y[3]).all()
    negative_nan = np.array([[0, np.copysign(np.float32(np.nan), -1)]], np.float32)
    assert np.isnan(softmax(negative_nan, implementation=implementation)).all()


def test_reference_gradient_is_the_finite_difference(numeric_gradient):
    random = np.random.default_rng(0)
    x, g = random.standard_normal((2, 3, 5)), random.standard_normal((2, 3, 5))
    expected = numeric_gradient(lambda: softmax(x), x, g)
    np.testing.assert_allclose(softmax_backward(g, softmax(x)), expected, atol=1e-8)


@pytest.mark.parametrize("implementation", CPU)
def test_agrees_with_torch(implementation):
    torch = pytest.importorskip("torch")
    x = torch.randn(9, 301, generator=torch.manual_seed(0), requires_grad=True)
    g = torch.randn(9, 301, generator=torch.manual_seed(1))
    y = torch.softmax(x, -1)
    y.backward(g)
    mine = softmax(x.detach().numpy(), implementation=implementation)
    np.testing.assert_allclose(mine, y.detach().numpy(), rtol=3e-6, atol=1e-8)
    dx = softmax_backward(g.numpy(), mine, implementation=implementation)
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_same_bits_on_any_number_of_threads(same_bits):
    x = np.random.default_rng(0).standard_normal((SERIAL_BELOW // 128, 129)).astype(np.float32)
    same_bits(lambda: (softmax(x), softmax_backward(x, softmax(x))))


def test_errors_say_what_to_do():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"axis is 2; an array of shape \(2, 3\) has axes -2 to 1"):
        softmax(x, axis=2)
    with pytest.raises(
        ValueError, match=r"can't run on these arguments\. 'cpu': it works along the last axis, 1, not 0"
    ):
        softmax(x, axis=0, implementation="cpu")
    with pytest.raises(TypeError, match="x is int64; expected floating-point numbers"):
        softmax(np.arange(3))
    with pytest.raises(ValueError, match=r"g has shape \(3,\); expected \(2, 3\)"):
        softmax_backward(np.zeros(3, np.float32), x)


MASKS = [(), (33,), (1, 33), (5, 1), (3, 5, 33), (3, 1, 33), (1, 5, 33), (3, 1, 1), (2, 3, 5, 33), (2, 1, 1, 33)]


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
def test_masked(implementation, shape, layout, error_law, laid_out):
    random = np.random.default_rng(len(shape))
    x = laid_out((4 * random.standard_normal((2, 3, 5, 33))).astype(np.float32), layout)
    mask = laid_out(np.array(random.random(shape) < 0.6), layout)
    error_law(softmax, x, mask=mask, implementation=implementation)
    y = softmax(x, mask=mask, implementation=implementation)
    spread = np.broadcast_to(mask, x.shape)
    np.testing.assert_array_equal(y[~spread], 0)
    np.testing.assert_allclose(y.sum(-1), spread.any(-1), rtol=1e-5)
    np.testing.assert_array_equal(y, softmax(np.where(mask, x, -np.inf), implementation=implementation))


@pytest.mark.parametrize("implementation", CPU)
def test_masked_numbers_count_nothing_whatever_they_are(implementation):
    x = np.array([[1, np.nan, np.inf, 1], [np.nan, 0, 0, 0], [1, 2, 3, np.nan]], np.float32)
    mask = np.array([[True, False, False, True], [False] * 4, [True] * 4])
    y = softmax(x, mask=mask, implementation=implementation)
    np.testing.assert_array_equal(y[:2], [[0.5, 0, 0, 0.5], [0, 0, 0, 0]])
    assert np.isnan(y[2]).all()


def test_masked_along_any_axis_and_large_and_empty(error_law):
    random = np.random.default_rng(0)
    x = random.standard_normal((70, SERIAL_BELOW // 64 + 1), dtype=np.float32)
    mask = random.random((70, 1)) < 0.5
    error_law(softmax, x, mask=mask, axis=0, implementation="auto")
    error_law(softmax, x, mask=random.random(x.shape) < 0.5, implementation="auto")
    assert softmax(np.zeros((0, 3), np.float32), mask=np.zeros(3, bool)).shape == (0, 3)
    assert softmax(np.zeros((3, 0), np.float32), mask=np.zeros((3, 1), bool)).shape == (3, 0)


def test_masks_that_do_not_fit_are_refused():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(TypeError, match="mask is float32; expected an array of booleans"):
        softmax(x, mask=x)
    with pytest.raises(TypeError, match="mask is list; expected an array of booleans"):
        softmax(x, mask=[True, False, True])
    with pytest.raises(ValueError, match=r"mask has shape \(2,\); expected one that broadcasts to that of x, \(2, 3\)"):
        softmax(x, mask=np.ones(2, bool))
    with pytest.raises(ValueError, match="mask has shape"):
        softmax(x, mask=np.ones((1, 2, 3), bool))
