"""`check`: everything that is asked of every differentiable operation, for one case of a test's table."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

import minilm
from minilm import Tensor
from minilm.autograd import gradcheck, gradgradcheck


@pytest.fixture
def check(rng):
    """`check(function, inputs, oracle=None, second=True)` for `inputs` that are shapes or float64 arrays.

    Gradients of first and second order against finite differences; non-contiguous inputs give what contiguous ones
    give; raw arrays give a raw array with the same values; float32 stays float32, forward and backward; and values and
    gradients are those of `oracle`, the same function on torch's tensors, where torch is installed.
    """

    def run(function, inputs, oracle=None, second=True) -> None:
        arrays = [x if isinstance(x, np.ndarray) else rng.standard_normal(x) for x in inputs]
        tensors = [_leaf(x) for x in arrays]
        assert gradcheck(function, tensors)
        if second:
            assert gradgradcheck(function, tensors)
        outputs, gradients = _forward_and_backward(function, tensors)
        _check_raw(function, arrays, outputs)
        _check_strided(function, arrays, outputs, gradients)
        _check_float32(function, arrays, outputs, gradients)
        if oracle is not None and importlib.util.find_spec("torch") is not None:
            _check_torch(oracle, arrays, outputs, gradients)

    return run


def _leaf(array) -> Tensor:
    return minilm.tensor(array, requires_grad=True)


def _many(out) -> list:
    return list(out) if isinstance(out, (tuple, list)) else [out]


def _weights(outputs) -> list:
    """Weights of the outputs' elements that are the same in each run, and not all alike."""
    return [np.cos(np.arange(math.prod(y.shape))).reshape(tuple(y.shape)) for y in outputs]


def _forward_and_backward(function, tensors) -> tuple[list, list]:
    outputs = _many(function(*tensors))
    gradients = minilm.grad(outputs, tensors, [w.astype(y.dtype) for w, y in zip(_weights(outputs), outputs)])
    return [y.numpy() for y in outputs], [g.numpy() for g in gradients]


def _check_raw(function, arrays, outputs) -> None:
    for y, expected in zip(_many(function(*arrays)), outputs):
        assert isinstance(y, (np.ndarray, np.generic)), "raw arrays must give a raw array"
        np.testing.assert_array_equal(y, expected)


def _check_strided(function, arrays, outputs, gradients) -> None:
    strided = []
    for x in arrays:
        spread = np.full(tuple(2 * n for n in reversed(x.shape)), np.nan)
        view = spread[(..., *(slice(None, None, 2),) * x.ndim)].T  # every other element, axes in the other order
        view[...] = x
        strided.append(view)
    again, gradients_again = _forward_and_backward(function, [_leaf(x) for x in strided])
    for found, expected in zip(again + gradients_again, outputs + gradients):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg="of non-contiguous inputs")


def _check_float32(function, arrays, outputs, gradients) -> None:
    single = [x.astype(np.float32) for x in arrays]
    found, found_gradients = _forward_and_backward(function, [_leaf(x) for x in single])
    for y, expected in zip(found + found_gradients, outputs + gradients):
        assert y.dtype == np.float32, f"float32 came back as {y.dtype}"
        np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-5, err_msg="in float32")


def _check_torch(oracle, arrays, outputs, gradients) -> None:
    import torch

    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    theirs = _many(oracle(*tensors))
    for y, expected in zip(outputs, theirs, strict=True):
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-9, atol=1e-9, err_msg="torch's value")
    weights = [torch.tensor(w) for w in _weights(theirs)]
    for g, expected in zip(gradients, torch.autograd.grad(theirs, tensors, weights), strict=True):
        np.testing.assert_allclose(g, expected.numpy(), rtol=1e-9, atol=1e-9, err_msg="torch's gradient")
