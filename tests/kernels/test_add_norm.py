"""add_layer_norm, add_rms_norm and their gradients: against the float64 reference, and the two steps that they fuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import (
    add_layer_norm,
    add_layer_norm_backward,
    add_rms_norm,
    add_rms_norm_backward,
    implementations,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from minilm_kernels.chunks import SERIAL_BELOW

LAYER = [entry.name for entry in implementations("add_layer_norm", device="cpu")]
RMS = [entry.name for entry in implementations("add_rms_norm", device="cpu")]
SHAPES = [(1,), (7,), (0, 5), (3, 1), (4, 17), (2, 3, 65), (2, 0, 3), (70, 33), (SERIAL_BELOW // 256, 257)]
LAYOUTS = ["contiguous", "transposed", "strided", "readonly"]


def arrays(shape, seed=0, dtype=np.float32):
    """x, residual, g and g_total of `shape`, weight and bias of its last axis."""
    random = np.random.default_rng(seed)
    made = *random.standard_normal((4, *shape)), *random.standard_normal((2, shape[-1]))
    return [array.astype(dtype) for array in made]


@pytest.mark.parametrize("implementation", LAYER)
@settings(max_examples=20, deadline=None)
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 2**32 - 1))
def test_add_layer_norm_obeys_the_error_law(implementation, shape, layout, seed, error_law, laid_out):
    x, residual, g, g_total, weight, bias = (laid_out(array, layout) for array in arrays(shape, seed))
    _, total, mean, rstd = add_layer_norm(x, residual, weight, bias)
    run = {"implementation": implementation, "size": 4 * rstd.max(initial=1)}  # in rows of one all cancels
    error_law(add_layer_norm, x, residual, weight, bias, **run)
    error_law(add_layer_norm, x, residual, None, None, **run)
    error_law(add_layer_norm_backward, g, g_total, total, weight, mean, rstd, **run)
    error_law(add_layer_norm_backward, g, g_total, total, None, mean, rstd, needs=(True, False, True), **run)


@pytest.mark.parametrize("implementation", RMS)
@settings(max_examples=20, deadline=None)
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 2**32 - 1))
def test_add_rms_norm_obeys_the_error_law(implementation, shape, layout, seed, error_law, laid_out):
    x, residual, g, g_total, weight, _ = (laid_out(array, layout) for array in arrays(shape, seed))
    _, total, rstd = add_rms_norm(x, residual, weight)
    run = {"implementation": implementation, "size": 4 * rstd.max(initial=1)}
    error_law(add_rms_norm, x, residual, weight, **run)
    error_law(add_rms_norm, x, residual, None, **run)
    error_law(add_rms_norm_backward, g, g_total, total, weight, rstd, **run)
    error_law(add_rms_norm_backward, g, g_total, total, None, rstd, needs=(False, True), **run)


def test_they_are_the_two_steps():
    x, residual, g, g_total, weight, bias = arrays((70, 33))
    y, total, mean, rstd = add_layer_norm(x, residual, weight, bias)
    np.testing.assert_array_equal(total, x + residual)
    for mine, theirs in zip((y, mean, rstd), layer_norm(total, weight, bias)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    dx, dweight, dbias = layer_norm_backward(g, total, weight, mean, rstd)
    found = add_layer_norm_backward(g, g_total, total, weight, mean, rstd)
    for mine, theirs in zip(found, (dx + g_total, dweight, dbias)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    y, total, rstd = add_rms_norm(x, residual, weight)
    for mine, theirs in zip((y, rstd), rms_norm(total, weight)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    dx, dweight = rms_norm_backward(g, total, weight, rstd)
    for mine, theirs in zip(add_rms_norm_backward(g, g_total, total, weight, rstd), (dx + g_total, dweight)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_same_bits_on_any_number_of_threads(same_bits):
    x, residual, g, g_total, weight, bias = arrays((SERIAL_BELOW // 128, 129))
    _, total, mean, rstd = add_layer_norm(x, residual, weight, bias)
    same_bits(
        lambda: (
            add_layer_norm(x, residual, weight, bias) + add_layer_norm_backward(g, g_total, total, weight, mean, rstd)
        )
    )


def test_errors_say_what_to_do():
    x, residual, g, g_total, weight, bias = arrays((4, 6))
    mean = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=r"residual has shape \(3, 6\); expected \(4, 6\)"):
        add_layer_norm(x, residual[:3], weight, bias)
    with pytest.raises(TypeError, match="residual is float64; expected float32"):
        add_rms_norm(x, residual.astype(np.float64), weight)
    with pytest.raises(ValueError, match=r"g_total has shape \(6,\); expected \(4, 6\)"):
        add_layer_norm_backward(g, g_total[0], x, weight, mean, mean)
    with pytest.raises(ValueError, match=r"rstd has shape \(3,\); expected \(4,\)"):
        add_rms_norm_backward(g, g_total, x, weight, mean[:3])
