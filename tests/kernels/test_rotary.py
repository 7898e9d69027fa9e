"""rotary and its gradient, every implementation against the float64 reference and the definition in complex numbers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import implementations, rotary, rotary_backward

CPU = [entry.name for entry in implementations("rotary", device="cpu")]
LAYOUTS = ["contiguous", "split heads", "part of a projection", "reversed", "strided", "readonly"]


def arrays(B, H, T, D, half, per_row=False, seed=0, dtype=np.float32):
    """x and the tables."""
    random = np.random.default_rng(seed)
    angles = random.uniform(-7, 7, (B, T, half) if per_row else (T, half))
    return [a.astype(dtype) for a in (random.standard_normal((B, H, T, D)), np.cos(angles), np.sin(angles))]


def laid(x, layout):
    """The same numbers, as attention's inputs lie in memory."""
    B, H, T, D = x.shape
    if layout in ("split heads", "part of a projection"):
        wide = np.zeros((B, T, 3 * H * D if layout != "split heads" else H * D), x.dtype)
        view = wide[..., : H * D].reshape(B, T, H, D).swapaxes(1, 2)
        view[...] = x
        return view
    if layout == "reversed":
        return np.ascontiguousarray(x[:, ::-1, ::-1])[:, ::-1, ::-1]
    if layout == "strided":
        wide = np.zeros((B, H, 2 * T, 2 * D), x.dtype)
        wide[:, :, ::2, ::2] = x
        return wide[:, :, ::2, ::2]
    x = x.copy()
    x.flags.writeable = layout != "readonly"
    return x


@pytest.mark.parametrize("implementation", CPU)
@settings(max_examples=60, deadline=None)
@given(
    B=st.integers(0, 3),
    H=st.integers(1, 3),
    T=st.sampled_from([0, 1, 2, 9]),
    D=st.sampled_from([1, 2, 7, 16, 34, 64]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    interleaved=st.booleans(),
    per_row=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 2**32 - 1),
)
def test_obeys_the_error_law(implementation, B, H, T, D, share, interleaved, per_row, layout, seed, error_law):
    x, cos, sin = arrays(B, H, T, D, int(share * (D // 2)), per_row, seed)
    x = laid(x, layout)
    error_law(rotary, x, cos, sin, interleaved=interleaved, implementation=implementation)
    error_law(rotary_backward, x, cos, sin, interleaved=interleaved, implementation=implementation)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("interleaved", [False, True])
def test_is_a_product_of_complex_numbers(implementation, interleaved):
    x, cos, sin = arrays(2, 3, 5, 12, 4, dtype=np.float64)
    y = rotary(x, cos, sin, interleaved=interleaved, implementation="reference")
    single = (array.astype(np.float32) for array in (x, cos, sin))
    np.testing.assert_allclose(rotary(*single, interleaved=interleaved, implementation=implementation), y, atol=1e-6)
    pairs = (slice(0, 8, 2), slice(1, 8, 2)) if interleaved else (slice(0, 4), slice(4, 8))
    turned = (x[..., pairs[0]] + 1j * x[..., pairs[1]]) * (cos + 1j * sin)
    np.testing.assert_allclose(y[..., pairs[0]], turned.real, atol=1e-12)
    np.testing.assert_allclose(y[..., pairs[1]], turned.imag, atol=1e-12)
    np.testing.assert_array_equal(y[..., 8:], x[..., 8:])


@pytest.mark.parametrize("interleaved", [False, True])
def test_backward_is_the_finite_difference(numeric_gradient, interleaved):
    x, cos, sin = arrays(1, 2, 3, 6, 2, dtype=np.float64)
    g = np.random.default_rng(1).standard_normal(x.shape)
    expected = numeric_gradient(lambda: rotary(x, cos, sin, interleaved=interleaved), x, g)
    np.testing.assert_allclose(rotary_backward(g, cos, sin, interleaved=interleaved), expected, atol=1e-8)


@pytest.mark.parametrize("implementation", CPU)
def test_the_result_lies_in_memory_as_x_does(implementation):
    x, cos, sin = arrays(2, 3, 5, 8, 4)
    assert rotary(laid(x, "split heads"), cos, sin, implementation=implementation).swapaxes(1, 2).flags.c_contiguous
    assert rotary(x, cos, sin, implementation=implementation).flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("interleaved", [False, True])
def test_half_precision_is_turned_by_float32_tables_and_rounded_once(dtype, interleaved):
    x, cos, sin = arrays(2, 3, 5, 16, 6, seed=1)
    x = x.astype(dtype)
    for turn in (rotary, rotary_backward):
        found = turn(x, cos, sin, interleaved=interleaved)
        exact = turn(x.astype(np.float32), cos, sin, interleaved=interleaved, implementation="reference")
        assert found.dtype == dtype
        np.testing.assert_allclose(found.astype(np.float32), exact, rtol=float(ml_dtypes.finfo(dtype).eps), atol=1e-6)


def test_nan_stays_in_its_pair():
    x, cos, sin = arrays(1, 2, 3, 32, 16)
    x[0, 1, 2, 3] = np.nan
    wrong = np.argwhere(np.isnan(rotary(x, cos, sin)))
    np.testing.assert_array_equal(wrong, [[0, 1, 2, 3], [0, 1, 2, 19]])


def test_same_bits_on_any_number_of_threads(same_bits):
    x, cos, sin = arrays(4, 6, 64, 64, 32)
    same_bits(lambda: (rotary(x, cos, sin), rotary_backward(x, cos, sin, interleaved=True)))


def test_errors_say_what_to_do():
    x, cos, sin = arrays(2, 3, 4, 8, 4)
    with pytest.raises(ValueError, match=r"x has shape \(3, 4, 8\); expected \(B, H, T, D\): reshape it"):
        rotary(x[0], cos, sin)
    with pytest.raises(ValueError, match=r"cos has shape \(3, 4\); expected \(4, R/2\) or \(2, 4, R/2\) with R of at"):
        rotary(x, cos[:3], sin[:3])
    with pytest.raises(ValueError, match="with R of at most 6"):
        rotary(x[..., :6], cos, sin)
    with pytest.raises(TypeError, match="sin is float64; expected float32"):
        rotary(x, cos, sin.astype(np.float64))
    with pytest.raises(ValueError, match=r"sin has shape \(4, 3\); expected \(4, 4\)"):
        rotary_backward(x, cos, sin[:, :3])
