"""exp and tanh of the vectors that score_mods are compiled to: the accuracy that their file states, and their edges."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from minilm_kernels.attention.mods import lanes  # noqa: E402
from minilm_kernels.simd import load, store  # noqa: E402

jit = numba.njit(error_model="numpy")


@jit
def _exp_of(x, y):
    for i in range(0, x.size, 8):
        store(y, i, lanes.exp(load(x, i)))


@jit
def _tanh_of(x, y):
    for i in range(0, x.size, 8):
        store(y, i, lanes.tanh(load(x, i)))


@pytest.mark.parametrize(
    ("function", "exact", "low", "high", "allowed"),
    [(_exp_of, np.exp, -86.9, 88.7, 1.3), (_tanh_of, np.tanh, -12, 12, 1.6), (_tanh_of, np.tanh, -0.7, 0.7, 1.6)],
)
def test_accuracy_of_exp_and_tanh(function, exact, low, high, allowed):
    x = np.linspace(low, high, 400_000, dtype=np.float32)
    y = np.empty_like(x)
    function(x, y)
    expected = exact(x.astype(np.float64))
    assert (np.abs(y - expected) / np.spacing(np.abs(expected).astype(np.float32))).max() <= allowed
    x = np.array([0, np.nan, np.inf, -np.inf, 100, -100, 1e-40, 9.5], np.float32)
    y = np.empty_like(x)
    function(x, y)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(y, exact(x), rtol=2e-7, atol=1e-37)
