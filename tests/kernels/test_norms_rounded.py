"""Norms of float32 with a result in 16 bits: the same numbers, rounded in one pass, and the way back."""

from __future__ import annotations

import minilm_kernels
import ml_dtypes
import numpy as np
import pytest
from minilm_kernels import registry

from minilm import backend

# The arrays that an operation takes beside x, by their names in `_arrays`, and those that it returns beside y.
TAKES = {
    "layer_norm": ("weight", "bias"),
    "rms_norm": ("weight",),
    "add_layer_norm": ("residual", "weight", "bias"),
    "add_rms_norm": ("residual", "weight"),
}
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
SHAPES = [(1,), (0, 5), (3, 7), (2, 5, 64), (9, 260)]


def _arrays(shape, seed=0):
    random = np.random.default_rng(seed)
    rows = {name: random.standard_normal(shape).astype(np.float32) for name in ("x", "residual", "g", "g_total")}
    return rows | {name: random.standard_normal(shape[-1:]).astype(np.float32) for name in ("weight", "bias")}


def _check(operation: str, shape: tuple, dtype: np.dtype, implementation: str, device: str = "cpu") -> None:
    arrays = {name: backend.to_device(array, device) for name, array in _arrays(shape).items()}
    run = {"implementation": implementation}
    forward, backward = (getattr(minilm_kernels, operation + suffix) for suffix in ("", "_backward"))
    given = [arrays["x"], *(arrays[name] for name in TAKES[operation])]
    y, *others = forward(*given, **run)
    rounded, *same = forward(*given, dtype=dtype, **run)
    assert rounded.dtype == dtype
    _same(rounded, y, dtype)
    for one, other in zip(same, others, strict=True):
        assert one.dtype == np.float32
        _same(one, other)

    g = arrays["g"].astype(dtype)
    if operation.startswith("add_"):
        total, *statistics = others
        rest = arrays["g_total"], total, arrays["weight"], *statistics
    else:
        rest = arrays["x"], arrays["weight"], *others
    for one, other in zip(backward(g, *rest, **run), backward(g.astype(np.float32), *rest, **run), strict=True):
        assert one.dtype == np.float32
        _same(one, other)


def _same(one, other, dtype=np.float32) -> None:
    """Up to `dtype`'s rounding, and that of float32: a loop's depends on how far apart small arrays happen to lie."""
    one, other = (backend.to_numpy(array).astype(np.float32) for array in (one, other))
    unit = {"float32": 0, "float16": 2.0**-11, "bfloat16": 2.0**-8}[np.dtype(dtype).name]
    np.testing.assert_allclose(one, other, rtol=unit + 1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operation", TAKES)
def test_on_the_cpu(operation, shape, dtype):
    for entry in registry.implementations(operation, "cpu"):
        _check(operation, shape, dtype, entry.name)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("operation", TAKES)
def test_on_every_device(operation, dtype, device):
    for shape in SHAPES:
        _check(operation, shape, dtype, "auto", device)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operation", TAKES)
def test_by_the_cuda_kernels(operation, shape, dtype, emulated, monkeypatch):
    registry._candidates.cache_clear()
    monkeypatch.setattr(registry, "device_of", lambda array: "cuda")
    monkeypatch.setattr(registry, "_check_together", lambda *args: None)
    with emulated():
        _check(operation, shape, dtype, "cuda")
    registry._candidates.cache_clear()


@pytest.mark.parametrize("operation", TAKES)
def test_other_dtypes_are_refused(operation):
    arrays = _arrays((4, 6))
    forward = getattr(minilm_kernels, operation)
    given = [arrays["x"], *(arrays[name] for name in TAKES[operation])]
    y = forward(*given, dtype="float32")[0]  # x's own
    _same(y, forward(*given)[0])
    with pytest.raises(ValueError, match=r"dtype is float64; expected x's own, float32, or for a float32 x float16"):
        forward(*given, dtype="float64")
    with pytest.raises(ValueError, match=r"dtype is float16; expected x's own, float64"):
        forward(*(array.astype(np.float64) for array in given), dtype="float16")


def test_a_gradient_of_16_bits_beside_float64_is_refused():
    x = np.ones((3, 4))
    _, mean, rstd = minilm_kernels.layer_norm(x)
    with pytest.raises(TypeError, match="g is float16; expected float64"):
        minilm_kernels.layer_norm_backward(x.astype(np.float16), x, None, mean, rstd)
