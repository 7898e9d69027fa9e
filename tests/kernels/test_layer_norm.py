"""layer_norm, rms_norm and their gradients, every implementation against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minilm_kernels import implementations, layer_norm, layer_norm_backward, rms_norm, rms_norm_backward
from minilm_kernels.chunks import SERIAL_BELOW

LAYER = [entry.name for entry in implementations("layer_norm", device="cpu")]
RMS = [entry.name for entry in implementations("rms_norm", device="cpu")]
SHAPES = [(1,), (7,), (0, 5), (3, 1), (4, 17), (2, 3, 65), (2, 0, 3), (70, 33), (SERIAL_BELOW // 256, 257)]
LAYOUTS = ["contiguous", "transposed", "strided"]


def arrays(shape, seed=0, dtype=np.float32):
    """x and g of `shape`, weight and bias of its last axis."""
    random = np.random.default_rng(seed)
    made = random.standard_normal(shape) + 1, random.standard_normal(shape), *random.standard_normal((2, shape[-1]))
    return [array.astype(dtype) for array in made]


@pytest.mark.parametrize("implementation", LAYER)
@settings(max_examples=25, deadline=None)
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 2**32 - 1))
def test_layer_norm_obeys_the_error_law(implementation, shape, layout, seed, error_law, laid_out):
    x, g, weight, bias = (laid_out(array, layout) for array in arrays(shape, seed))
    _, mean, rstd = layer_norm(x, weight, bias)
    run = {"implementation": implementation, "size": rstd.max(initial=1)}  # large in rows of one: all cancels there
    error_law(layer_norm, x, weight, bias, **run)
    error_law(layer_norm, x, None, None, **run)
    error_law(layer_norm_backward, g, x, weight, mean, rstd, **run)
    error_law(layer_norm_backward, g, x, None, mean, rstd, needs=(True, False, True), **run)


@pytest.mark.parametrize("implementation", RMS)
@settings(max_examples=25, deadline=None)
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 2**32 - 1))
def test_rms_norm_obeys_the_error_law(implementation, shape, layout, seed, error_law, laid_out):
    x, g, weight, _ = (laid_out(array, layout) for array in arrays(shape, seed))
    error_law(rms_norm, x, weight, implementation=implementation)
    error_law(rms_norm, x, None, implementation=implementation)
    _, rstd = rms_norm(x, weight)
    run = {"implementation": implementation, "size": rstd.max(initial=1)}
    error_law(rms_norm_backward, g, x, weight, rstd, **run)
    error_law(rms_norm_backward, g, x, None, rstd, needs=(False, True), **run)


@pytest.mark.parametrize("implementation", LAYER)
def test_float64_stays_float64(implementation):
    x, g, weight, bias = arrays((SERIAL_BELOW // 512, 513), dtype=np.float64)
    y, mean, rstd = layer_norm(x, weight, bias, implementation=implementation)
    expected = layer_norm(x, weight, bias, implementation="reference")
    gradients = layer_norm_backward(g, x, weight, mean, rstd, implementation=implementation)
    expected += layer_norm_backward(g, x, weight, mean, rstd, implementation="reference")
    for mine, theirs in zip((y, mean, rstd, *gradients), expected):
        assert mine.dtype == np.float64
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("implementation", LAYER)
def test_a_large_mean_costs_no_digits(implementation):
    """E[x^2] - E[x]^2 would cancel here; two passes don't."""
    x = np.random.default_rng(0).standard_normal((4, 256)) + 1000
    y, _, _ = layer_norm(x.astype(np.float32), implementation=implementation)
    expected, _, _ = layer_norm(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(y, expected, atol=3e-4)


def test_reference_gradients_are_the_finite_differences(numeric_gradient):
    x, g, weight, bias = arrays((3, 2, 5), dtype=np.float64)
    _, mean, rstd = layer_norm(x, weight, bias)
    found = layer_norm_backward(g, x, weight, mean, rstd, implementation="reference")
    for array, gradient in zip((x, weight, bias), found):
        expected = numeric_gradient(lambda: layer_norm(x, weight, bias, implementation="reference")[0], array, g)
        np.testing.assert_allclose(gradient, expected, atol=1e-8)
    _, rstd = rms_norm(x, weight)
    for array, gradient in zip((x, weight), rms_norm_backward(g, x, weight, rstd, implementation="reference")):
        expected = numeric_gradient(lambda: rms_norm(x, weight, implementation="reference")[0], array, g)
        np.testing.assert_allclose(gradient, expected, atol=1e-8)


@pytest.mark.parametrize("implementation", LAYER)
def test_layer_norm_agrees_with_torch(implementation):
    torch = pytest.importorskip("torch")
    x, g, weight, bias = arrays((37, 129))
    leaves = [torch.from_numpy(array).requires_grad_() for array in (x, weight, bias)]
    theirs = torch.nn.functional.layer_norm(leaves[0], (129,), *leaves[1:], eps=1e-5)
    theirs.backward(torch.from_numpy(g))
    y, mean, rstd = layer_norm(x, weight, bias, implementation=implementation)
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)
    gradients = layer_norm_backward(g, x, weight, mean, rstd, implementation=implementation)
    for mine, leaf in zip(gradients, leaves):
        np.testing.assert_allclose(mine, leaf.grad.numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("implementation", RMS)
def test_rms_norm_agrees_with_torch(implementation):
    torch = pytest.importorskip("torch")
    x, g, weight, _ = arrays((37, 129))
    leaves = [torch.from_numpy(array).requires_grad_() for array in (x, weight)]
    theirs = torch.nn.functional.rms_norm(leaves[0], (129,), leaves[1], eps=1e-6)
    theirs.backward(torch.from_numpy(g))
    y, rstd = rms_norm(x, weight, implementation=implementation)
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)
    for mine, leaf in zip(rms_norm_backward(g, x, weight, rstd, implementation=implementation), leaves):
        np.testing.assert_allclose(mine, leaf.grad.numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("rows", [2, SERIAL_BELOW // 64])
def test_nan_stays_in_its_row(rows):
    x, g, weight, bias = arrays((rows, 65))
    x[1, 7] = np.nan
    y, mean, rstd = layer_norm(x, weight, bias)
    dx, dweight, dbias = layer_norm_backward(g, x, weight, mean, rstd)
    for array in (y, mean, rstd, dx):
        assert np.isnan(array[1]).all()
        assert np.isfinite(np.delete(array, 1, axis=0)).all()
    assert np.isnan(dweight).all()
    assert np.isfinite(dbias).all()
    y, rstd = rms_norm(x, weight)
    dx, dweight = rms_norm_backward(g, x, weight, rstd)
    assert np.isnan(y[1]).all()
    assert np.isnan(dx[1]).all()
    assert np.isfinite(y[0]).all()


def test_same_bits_on_any_number_of_threads(same_bits):
    x, g, weight, bias = arrays((SERIAL_BELOW // 128, 129))
    _, mean, rstd = layer_norm(x, weight, bias)
    same_bits(lambda: layer_norm(x, weight, bias) + layer_norm_backward(g, x, weight, mean, rstd))
    _, rstd_rms = rms_norm(x, weight)
    same_bits(lambda: rms_norm(x, weight) + rms_norm_backward(g, x, weight, rstd_rms))


def test_errors_say_what_to_do():
    x, g, weight, bias = arrays((4, 6))
    mean = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=r"weight has shape \(5,\); expected \(6,\)"):
        layer_norm(x, weight[:5], bias)
    with pytest.raises(TypeError, match="bias is float64; expected float32"):
        layer_norm(x, weight, bias.astype(np.float64))
    with pytest.raises(ValueError, match=r"x has shape \(3, 0\); expected \(..., C\) with C of 1 or more"):
        layer_norm(np.zeros((3, 0)))
    with pytest.raises(TypeError, match="weight is a list; expected a NumPy or CuPy array"):
        rms_norm(x, [1.0] * 6)
    with pytest.raises(ValueError, match=r"g has shape \(6,\); expected \(4, 6\)"):
        layer_norm_backward(g[0], x, weight, mean, mean)
    with pytest.raises(ValueError, match=r"rstd has shape \(3,\); expected \(4,\)"):
        layer_norm_backward(g, x, weight, mean, mean[:3])
    with pytest.raises(ValueError, match=r"mean has shape \(3,\); expected \(4,\)"):
        layer_norm_backward(g, x, weight, mean[:3], mean)
    with pytest.raises(ValueError, match=r"rstd has shape \(3,\); expected \(4,\)"):
        rms_norm_backward(g, x, weight, mean[:3])
    with pytest.raises(ValueError, match="rms_norm has no implementation 'fast'; there are: 'auto', "):
        rms_norm(x, weight, implementation="fast")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [512, 511])
def test_results_too_large_for_the_cache(dtype, columns):
    """Past 8 MiB rows of whole cache lines are written past the cache."""
    x, g, weight, bias = arrays((4099, columns), dtype=dtype)
    y, mean, rstd = layer_norm(x, weight, bias)
    expected = layer_norm(x, weight, bias, implementation="reference")
    found = y, mean, rstd, *layer_norm_backward(g, x, weight, mean, rstd)
    expected += layer_norm_backward(g, x, weight, mean, rstd, implementation="reference")
    for mine, theirs in zip(found, expected):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=2e-4)
