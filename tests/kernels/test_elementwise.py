"""The elementwise functions and their gradients, every implementation against the float64 reference."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import elementwise, elementwise_backward, implementations
from minilm_kernels.chunks import SERIAL_BELOW
from minilm_kernels.elementwise import FUNCTIONS

CPU = [entry.name for entry in implementations("elementwise", device="cpu")]
EACH = pytest.mark.parametrize("function", FUNCTIONS)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30, 88.7, 90.0, -90.0, -104.0], np.float32)


def arrays(function, shape, seed=0, dtype=np.float32):
    """A gradient, and numbers that the function is of."""
    g, x = ((3 * array).astype(dtype) for array in np.random.default_rng(seed).standard_normal((2, *shape)))
    return g, np.abs(x) + dtype(0.01) if function == "log" else x


def kept(function, x):
    if FUNCTIONS[function] == "x":
        return x
    return np.asarray(elementwise(x, function=function, implementation="reference"))


@EACH
@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([(), (0,), (1,), (7,), (33,), (0, 5), (4, 17), (2, 3, 65), (1025,), (2049,)]),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "readonly"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, function, shape, layout, seed, error_law, laid_out):
    g, x = (laid_out(array, layout) for array in arrays(function, shape, seed))
    forward, backward = (partial(f, function=function) for f in (elementwise, elementwise_backward))
    error_law(forward, x, implementation=implementation)
    given_back = laid_out(kept(function, x), layout)
    error_law(backward, g, given_back, size=10.0, implementation=implementation)  # 1 - y is a difference


@EACH
@pytest.mark.parametrize("implementation", CPU)
def test_large_arrays(implementation, function, error_law):
    g, x = arrays(function, (5, SERIAL_BELOW // 2 + 3))
    forward, backward = (partial(f, function=function) for f in (elementwise, elementwise_backward))
    error_law(forward, x, implementation=implementation)
    error_law(backward, g, kept(function, x), size=10.0, implementation=implementation)


@EACH
def test_reference_gradient_is_the_finite_difference(function, numeric_gradient):
    g, x = arrays(function, (3, 4), dtype=np.float64)
    run = {"function": function, "implementation": "reference"}
    expected = numeric_gradient(lambda: elementwise(x, **run), x, g)
    np.testing.assert_allclose(elementwise_backward(g, kept(function, x), **run), expected, rtol=1e-5, atol=1e-7)


@EACH
@pytest.mark.parametrize("implementation", CPU)
def test_agrees_with_torch_also_at_the_ends(implementation, function):
    torch = pytest.importorskip("torch")
    g, x = arrays(function, (40, 97))
    x[0, : SPECIAL.size] = SPECIAL
    leaf = torch.from_numpy(x).requires_grad_()
    theirs = (torch.nn.functional.silu if function == "silu" else getattr(torch, function))(leaf)
    theirs.backward(torch.from_numpy(g))
    run = {"function": function, "implementation": implementation}
    with np.errstate(all="ignore"):
        y = elementwise(x, **run)
        np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-6, atol=1e-36)
        found = elementwise_backward(g, y if FUNCTIONS[function] == "y" else x, **run)
    usual = np.isfinite(y) & np.isfinite(x)  # beyond, libraries differ in 0 times infinity
    np.testing.assert_allclose(found[usual], leaf.grad.numpy()[usual], rtol=1e-4, atol=2e-6)


def test_exp_ends_at_the_smallest_numbers():
    x = np.linspace(-103, -80, 5001, dtype=np.float32)
    expected = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(elementwise(x, function="exp"), expected, rtol=4e-7, atol=2e-45)


@EACH
def test_same_bits_on_any_number_of_threads(function, same_bits):
    g, x = arrays(function, (3, SERIAL_BELOW))
    y = elementwise(x, function=function)
    same_bits(lambda: (elementwise(x, function=function), elementwise_backward(g, y, function=function)))


def test_errors_say_what_to_do():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="function is one of erf, exp, log, relu, sigmoid, silu, tanh, not 'swish'"):
        elementwise(x, function="swish")
    with pytest.raises(TypeError, match="x is int64; expected floating-point numbers"):
        elementwise(np.arange(3), function="exp")
    with pytest.raises(ValueError, match=r"g has shape \(3,\); expected \(2, 3\)"):
        elementwise_backward(x[0], x, function="tanh")
