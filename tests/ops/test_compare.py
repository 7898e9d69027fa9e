"""Comparisons and choices: NumPy's values, no gradient."""

import operator

import numpy as np
import pytest

import minilm
from minilm import backend, ops

A = np.array([[1.0, 2.0, np.nan], [np.inf, 0.0, -1.0]])
B = np.array([1.0, 3.0, 0.0])


@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
def test_comparison(name):
    expected = getattr(np, name)(A, B)
    np.testing.assert_array_equal(getattr(ops, name)(A, B), expected)
    compared = getattr(ops, name)(minilm.tensor(A, requires_grad=True), minilm.tensor(B))
    np.testing.assert_array_equal(compared.numpy(), expected)
    assert not compared.requires_grad
    assert compared.dtype == bool


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("other", [1.0, 1, np.float32(1), B, [1.0, 3.0, 0.0]])
def test_comparison_operator(name, other, device):
    compare = getattr(operator, name)
    x, there = minilm.tensor(A, device=device), backend.to_device(other, device) if other is B else other
    np.testing.assert_array_equal(compare(x, there).numpy(), compare(A, np.asarray(other)))
    np.testing.assert_array_equal(compare(there, x).numpy(), compare(np.asarray(other), A))


@pytest.mark.parametrize("name", ["isnan", "isfinite", "logical_not"])
def test_of_one(name, device):
    np.testing.assert_array_equal(getattr(ops, name)(minilm.tensor(A, device=device)).numpy(), getattr(np, name)(A))


@pytest.mark.parametrize("name", ["logical_and", "logical_or"])
def test_of_two(name):
    np.testing.assert_array_equal(getattr(ops, name)(minilm.tensor(A), B).numpy(), getattr(np, name)(A, B))


@pytest.mark.parametrize("name", ["and_", "or_", "xor"])
def test_bits_and_booleans(name):
    combine = getattr(operator, name)
    for left, right in [(np.array([6, 5]), 3), (np.array([True, False]), np.array([True, True]))]:
        np.testing.assert_array_equal(combine(minilm.tensor(left), right).numpy(), combine(left, right))
        np.testing.assert_array_equal(combine(right, minilm.tensor(left)).numpy(), combine(right, left))
        np.testing.assert_array_equal((~minilm.tensor(left)).numpy(), ~left)


@pytest.mark.parametrize("name", ["all", "any"])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
def test_all_and_any(name, axis, device):
    x = np.array([[True, False], [True, True]])
    np.testing.assert_array_equal(
        getattr(minilm.tensor(x, device=device), name)(axis).numpy(), getattr(np, name)(x, axis)
    )
    assert getattr(ops, name)(x, axis, keepdims=True).ndim == 2


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_places_of_extremes(name, axis, rng, device):
    x = rng.integers(0, 3, (4, 5)).astype(float)
    found = getattr(minilm.tensor(x, requires_grad=True, device=device), name)(axis)
    np.testing.assert_array_equal(found.numpy(), getattr(np, name)(x, axis))
    assert found.dtype == np.int64
    assert not found.requires_grad


def test_argsort_is_stable(device):
    assert minilm.tensor([2.0, 1.0, 2.0, 1.0], device=device).argsort().tolist() == [1, 3, 0, 2]
