"""`check`: everything that is asked of every differentiable operation, for one case of a test's table."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

import minilm
from minilm import Tensor, backend
from minilm.autograd import gradcheck, gradgradcheck


@pytest.fixture
def check(rng, device):
    """`check(function, inputs, oracle=None, second=True)` for `inputs` that are shapes or float64 arrays.

    Gradients of first and second order against finite differences (on a GPU the CPU's);
    non-contiguous inputs give what contiguous ones
    give; raw arrays give a raw array with the same values; float32 stays float32, forward and backward; and values and
    gradients are those of `oracle`, the same function on torch's tensors, where torch is installed. All of it on each
    device.
    """

    def run(function, inputs, oracle=None, second=True) -> None:
        arrays = [x if isinstance(x, np.ndarray) else rng.standard_normal(x) for x in inputs]
        there = [backend.to_device(x, device) for x in arrays]
        tensors = [_leaf(x) for x in there]
        if device == "cpu":
            assert gradcheck(function, tensors)
            if second:
                assert gradgradcheck(function, tensors)
        outputs, gradients = _forward_and_backward(function, tensors)
        if device != "cpu":
            _check_as_on_the_cpu(function, arrays, tensors, outputs + gradients, second)
        _check_raw(function, there, outputs)
        _check_strided(function, there, outputs, gradients)
        _check_float32(function, there, outputs, gradients)
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
    gradients = minilm.grad(outputs, tensors, _there(outputs))
    return [y.numpy() for y in outputs], [g.numpy() for g in gradients]


def _check_as_on_the_cpu(function, arrays, tensors, found: list, second: bool) -> None:
    here = [_leaf(x) for x in arrays]
    expected, gradients = _forward_and_backward(function, here)
    expected += gradients
    if second:
        found, expected = found + _second_order(function, tensors), expected + _second_order(function, here)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9, err_msg="of the CPU")


def _second_order(function, tensors) -> list:
    """The gradients of the gradients' weighed sum, zero where they depend on nothing."""
    outputs = [y for y in _many(function(*tensors)) if y.requires_grad]
    first = minilm.grad(outputs, tensors, _there(outputs), create_graph=True, allow_unused=True)
    first = [g for g in first if g is not None and g.requires_grad]
    second = minilm.grad(first, tensors, _there(first), allow_unused=True) if first else [None] * len(tensors)
    return [np.zeros(x.shape) if g is None else g.numpy() for x, g in zip(tensors, second)]


def _there(outputs) -> list:
    """The outputs' weights, each of its dtype and on its device."""
    return [backend.to_device(w.astype(y.dtype), y.device) for w, y in zip(_weights(outputs), outputs)]


def _check_raw(function, arrays, outputs) -> None:
    for y, expected in zip(_many(function(*arrays)), outputs):
        assert isinstance(y, (type(arrays[0]), np.generic)), "raw arrays must give a raw array"
        # (In its last bit a small array may depend on where it lies in memory: a loop is vectorised or not.)
        np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=1e-14, atol=1e-14)


def _check_strided(function, arrays, outputs, gradients) -> None:
    strided = []
    for x in arrays:
        spread = backend.array_module(x).full(tuple(2 * n for n in reversed(x.shape)), np.nan)
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
