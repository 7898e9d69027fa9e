"""swiglu and its gradient, every implementation against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import implementations, swiglu, swiglu_backward
from minilm_kernels.chunks import SERIAL_BELOW

CPU = [entry.name for entry in implementations("swiglu", device="cpu")]


def arrays(shape, seed=0, dtype=np.float32):
    """A gradient, gates and what they let through."""
    return [(3 * array).astype(dtype) for array in np.random.default_rng(seed).standard_normal((3, *shape))]


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(), (0,), (1,), (7,), (33,), (0, 5), (4, 17), (2, 3, 65), (1025,), (2049,)]),
    layout=st.sampled_from(["contiguous", "transposed", "strided", "readonly"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, shape, layout, seed, error_law, laid_out):
    g, gate, up = (laid_out(array, layout) for array in arrays(shape, seed))
    error_law(swiglu, gate, up, implementation=implementation, size=1.0)
    error_law(swiglu_backward, g, gate, up, implementation=implementation, size=1.0)


@pytest.mark.parametrize("implementation", CPU)
def test_large_arrays(implementation, error_law):
    g, gate, up = arrays((5, SERIAL_BELOW // 2 + 3))
    error_law(swiglu, gate, up, implementation=implementation)
    error_law(swiglu_backward, g, gate, up, implementation=implementation)


def test_reference_gradient_is_the_finite_difference(numeric_gradient):
    g, gate, up = arrays((3, 4), dtype=np.float64)
    for array, found in zip((gate, up), swiglu_backward(g, gate, up, implementation="reference")):
        expected = numeric_gradient(lambda: swiglu(gate, up, implementation="reference"), array, g)
        np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("implementation", CPU)
def test_agrees_with_torch(implementation):
    torch = pytest.importorskip("torch")
    g, gate, up = arrays((40, 97))
    leaves = [torch.from_numpy(array).requires_grad_() for array in (gate, up)]
    theirs = torch.nn.functional.silu(leaves[0]) * leaves[1]
    theirs.backward(torch.from_numpy(g))
    np.testing.assert_allclose(
        swiglu(gate, up, implementation=implementation), theirs.detach().numpy(), rtol=1e-5, atol=1e-6
    )
    for mine, leaf in zip(swiglu_backward(g, gate, up, implementation=implementation), leaves):
        np.testing.assert_allclose(mine, leaf.grad.numpy(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("implementation", CPU)
def test_far_out_it_is_the_product_or_nothing(implementation):
    gate = np.array([1000, -1000, np.nan, 0], np.float32)
    up = np.full(4, 3, np.float32)
    np.testing.assert_array_equal(swiglu(gate, up, implementation=implementation), [3000, 0, np.nan, 0])
    dgate, dup = swiglu_backward(np.ones_like(gate), gate, up, implementation=implementation)
    np.testing.assert_array_equal(dgate, [3, 0, np.nan, 1.5])
    np.testing.assert_array_equal(dup, [1000, 0, np.nan, 0])


def test_same_bits_on_any_number_of_threads(same_bits):
    g, gate, up = arrays((2 * SERIAL_BELOW + 3,))
    same_bits(lambda: (swiglu(gate, up), *swiglu_backward(g, gate, up)))


def test_errors_say_what_to_do():
    g, gate, up = arrays((2, 3))
    with pytest.raises(ValueError, match=r"up has shape \(3,\); expected \(2, 3\)"):
        swiglu(gate, up[0])
    with pytest.raises(TypeError, match="up is float64; expected float32"):
        swiglu(gate, up.astype(np.float64))
    with pytest.raises(TypeError, match="gate is int64; expected floating-point numbers"):
        swiglu(np.arange(3), np.arange(3))
    with pytest.raises(ValueError, match=r"g has shape \(2,\); expected \(2, 3\)"):
        swiglu_backward(g[:, 0], gate, up)
