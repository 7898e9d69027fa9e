"""The vectorisable functions: the accuracy that their file states, their edges, and that loops with them vectorise."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from minilm_kernels import vector_math
from minilm_kernels.jit import FAST_MATH

numba = pytest.importorskip("numba")
compiled = numba.njit(error_model="numpy", fastmath=FAST_MATH)


@compiled
def exp(x, y):
    for i in range(x.size):
        y[i] = vector_math.exp(x[i])


@compiled
def log(x, y):
    for i in range(x.size):
        y[i] = vector_math.log(x[i])


@compiled
def erf(x, y):
    for i in range(x.size):
        y[i] = vector_math.erf(x[i])


@compiled
def logistic(x, y):
    for i in range(x.size):
        y[i] = vector_math.logistic(x[i])


@compiled
def normal_tail(x, y):
    for i in range(x.size):
        y[i] = vector_math.normal_tail(x[i])[0]


@compiled
def largest(x, y):
    y[0] = vector_math.largest(x)


def run(function, x):
    y = np.empty_like(x)
    function(x, y)
    return y


def ulps(found, exact):
    return np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


def grid(low, high):
    return np.linspace(low, high, 400_001, dtype=np.float32)


def test_exp():
    x = np.concatenate([grid(-86.9, 88.7228), grid(-1, 1), grid(-1e-3, 1e-3)])
    assert ulps(run(exp, x), np.exp(x.astype(np.float64))).max() <= 1.3


def test_exp_at_its_edges():
    x = np.array([0, -0.0, -87.0, -104, -1e30, -np.inf, 88.73, 89.5, 1e30, np.inf, np.nan, -np.nan], np.float32)
    np.testing.assert_array_equal(run(exp, x), [1, 1, 0, 0, 0, 0, *[np.inf] * 4, np.nan, np.nan])


def test_log():
    x = np.concatenate([grid(1e-3, 3), np.exp(grid(-87.3, 88.7)), grid(0.99, 1.01), grid(1e-45, 1e-38)[1:]])
    found, exact = run(log, x), np.log(x.astype(np.float64))
    assert ulps(found[exact != 0], exact[exact != 0]).max() <= 1.3
    x = np.array([1, 0, -0.0, -1, -1e-45, -np.inf, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(run(log, x), [0, -np.inf, -np.inf, np.nan, np.nan, np.nan, np.inf, np.nan])


def test_erf():
    x = np.concatenate([grid(-6, 6)[::20], grid(-1e-3, 1e-3)[::20]])
    exact = np.array([math.erf(value) for value in x.astype(np.float64)])
    assert ulps(run(erf, x), exact).max() <= 1.9
    x = np.array([0, -0.0, 1e-30, 9, -9, 1e30, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_allclose(run(erf, x), [0, 0, 1.1283792e-30, 1, -1, 1, 1, -1, np.nan], rtol=2e-7)


def test_logistic():
    x = grid(-86, 86)
    assert ulps(run(logistic, x), 1 / (1 + np.exp(-x.astype(np.float64)))).max() <= 3.1
    x = np.array([0, -200, 200, -np.inf, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(run(logistic, x), [0.5, 0, 1, 0, 1, np.nan])


@pytest.mark.parametrize(("high", "allowed"), [(4, 11), (8, 45), (12, 120)])
def test_normal_tail(high, allowed):
    x = grid(0, high)[::40]
    exact = np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in x.astype(np.float64)])
    assert ulps(run(normal_tail, x), exact).max() <= allowed
    x = np.array([40, np.inf, np.nan], np.float32)
    np.testing.assert_allclose(run(normal_tail, x), [2.25e-38, 2.25e-38, np.nan], rtol=1e-2)  # as at 12.9


def test_order_of_keys_is_that_of_numbers():
    numbers = np.array([3, -np.inf, -2, 0, -0.0, 1e-40, -1e-40, np.inf, 5e30], np.float32)
    for count in range(1, len(numbers) + 1):
        assert run(largest, numbers[:count])[0] == numbers[:count].max()
    assert np.isnan(run(largest, np.array([1, np.nan, np.inf], np.float32))[0])


@pytest.mark.parametrize(
    ("function", "packed"),
    [
        (erf, "fdiv"),
        (exp, "fmul"),
        (log, "fmul"),
        (logistic, "fdiv"),
        (normal_tail, "fdiv"),
        (largest, "smax|icmp sgt"),
    ],
)
def test_loops_become_packed_arithmetic(function, packed):
    run(function, np.ones(64, np.float32))
    for code in function.inspect_llvm().values():
        assert re.search(rf"({packed}).* <\d+ x (float|i32)>", code)
        assert not re.search(r"call.*@(llvm\.)?(exp|log|erf)", code)
