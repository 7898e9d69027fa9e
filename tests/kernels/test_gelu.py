"""gelu and its gradient, every implementation against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import gelu, gelu_backward, implementations
from minilm_kernels.chunks import SERIAL_BELOW

FORMS = ["none", "tanh"]
CPU = [entry.name for entry in implementations("gelu", device="cpu")]


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(), (0,), (1,), (7,), (33,), (0, 5), (3, 0), (4, 17), (2, 3, 65), (1, 1)]),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, approximate, shape, layout, seed, error_law, laid_out):
    random = np.random.default_rng(seed)
    x = laid_out((4 * random.standard_normal(shape)).astype(np.float32), layout)
    g = laid_out(random.standard_normal(shape).astype(np.float32), layout)
    error_law(gelu, x, implementation=implementation, approximate=approximate, size=1.0)
    error_law(gelu_backward, g, x, implementation=implementation, approximate=approximate, size=1.0)


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("implementation", CPU)
def test_large_arrays_and_the_tails(implementation, approximate, error_law):
    x = np.linspace(-14, 14, 2 * SERIAL_BELOW + 1, dtype=np.float32)  # more than one thread's worth
    error_law(gelu, x, implementation=implementation, approximate=approximate, size=1.0)
    error_law(gelu_backward, np.ones_like(x), x, implementation=implementation, approximate=approximate)


@pytest.mark.parametrize("implementation", CPU)
def test_digits_are_kept_where_gelu_is_tiny(implementation):
    """x Phi(x) loses all digits below -5 when it is computed as x (1 + erf) / 2; the kernel keeps them."""
    if implementation == "reference":
        pytest.skip("the reference is the plain formula")
    torch = pytest.importorskip("torch")
    x = np.linspace(-8, 0, 5001)
    exact = x * 0.5 * torch.special.erfc(torch.from_numpy(-x / np.sqrt(2))).numpy()
    np.testing.assert_allclose(gelu(x.astype(np.float32), implementation=implementation), exact, rtol=5e-6, atol=1e-30)


@pytest.mark.parametrize("approximate", FORMS)
def test_reference_gradient_is_the_finite_difference(approximate, numeric_gradient):
    x = np.linspace(-4, 4, 15).reshape(3, 5)
    g = np.random.default_rng(0).standard_normal(x.shape)
    expected = numeric_gradient(lambda: gelu(x, approximate=approximate), x, g)
    np.testing.assert_allclose(gelu_backward(g, x, approximate=approximate), expected, atol=1e-8)


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("implementation", CPU)
def test_agrees_with_torch(implementation, approximate):
    torch = pytest.importorskip("torch")
    x = torch.linspace(-6, 6, 1000).double().requires_grad_()
    y = torch.nn.functional.gelu(x, approximate=approximate)
    y.sum().backward()
    array = x.detach().numpy().astype(np.float32)
    mine = gelu(array, approximate=approximate, implementation=implementation)
    np.testing.assert_allclose(mine, y.detach().numpy(), rtol=1e-5, atol=5e-6)
    dx = gelu_backward(np.ones_like(array), array, approximate=approximate, implementation=implementation)
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("size", [9, SERIAL_BELOW])
def test_nan_is_kept_and_infinity_is_a_limit(approximate, size):
    x = np.zeros(size, np.float32)
    x[3], x[5], x[7] = np.nan, np.inf, 90
    y = gelu(x, approximate=approximate)
    dx = gelu_backward(np.ones_like(x), x, approximate=approximate)
    assert np.isnan(y[3])
    assert np.isnan(dx[3])
    assert y[5] == np.inf
    assert (y[7], dx[7]) == (90, 1)
    assert np.isnan(gelu_backward(x, np.zeros_like(x), approximate=approximate)[3])


@pytest.mark.parametrize("approximate", FORMS)
def test_same_bits_on_any_number_of_threads(approximate, same_bits):
    x = np.random.default_rng(0).standard_normal(2 * SERIAL_BELOW + 3).astype(np.float32)
    same_bits(lambda: (gelu(x, approximate=approximate), gelu_backward(x, x, approximate=approximate)))


def test_errors_say_what_to_do():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="approximate is 'none' or 'tanh', not 'sigmoid'"):
        gelu(x, approximate="sigmoid")
    with pytest.raises(TypeError, match=r"x is int64; expected floating-point numbers: use x.astype\('float32'\)"):
        gelu(np.arange(3))
    with pytest.raises(ValueError, match=r"g has shape \(3,\); expected \(2, 3\)"):
        gelu_backward(np.zeros(3, np.float32), x)
    with pytest.raises(TypeError, match="g is float64; expected float32"):
        gelu_backward(np.zeros((2, 3)), x)
    with pytest.raises(TypeError, match="x is a list; expected a NumPy or CuPy array"):
        gelu([1.0])
    with pytest.raises(ValueError, match=r"bias has shape \(2,\); expected \(3,\)"):
        gelu(x, np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"x has shape \(\); expected \(..., C\)"):
        gelu_backward(np.zeros(()), np.zeros(()), np.zeros(1))
