"""Tensor's operators and methods are the operations, and `ops` is complete."""

import numpy as np
import pytest

import minilm
from minilm import Tensor, ops

REQUIRED = [
    "add", "subtract", "multiply", "divide", "negative", "power", "abs", "exp", "log", "sqrt", "tanh", "erf",
    "sigmoid", "relu", "gelu", "silu", "softplus", "maximum", "minimum", "where", "clip", "equal", "not_equal",
    "less", "less_equal", "greater", "greater_equal", "sum", "mean", "var", "max", "min", "prod", "logsumexp",
    "cumsum", "matmul", "einsum", "reshape", "transpose", "permute", "swapaxes", "expand", "squeeze",
    "concatenate", "stack", "split", "pad", "flip", "repeat", "take", "embedding", "gather", "scatter_add",
    "tril", "triu", "sort", "topk", "softmax", "log_softmax", "cross_entropy", "layer_norm", "rms_norm",
    "dropout", "scaled_dot_product_attention", "linear",
]  # fmt: skip
METHODS = [
    "abs", "cos", "erf", "exp", "log", "log1p", "sin", "sqrt", "square", "tanh", "gelu", "relu", "sigmoid",
    "silu", "softplus", "softmax", "sort", "var",
]  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_operation_is_public_and_documented(name):
    assert name in ops.__all__
    assert getattr(ops, name).__doc__


def test_every_public_name_is_there():
    assert all(callable(getattr(ops, name)) for name in ops.__all__)
    assert len(set(ops.__all__)) == len(ops.__all__)


def test_methods_are_the_operations(rng):
    values = rng.uniform(0.5, 2, (2, 3))
    x = minilm.tensor(values, requires_grad=True)
    for name in METHODS:
        y = getattr(x, name)()
        assert y.requires_grad
        np.testing.assert_array_equal(y.numpy(), getattr(ops, name)(values))
        assert getattr(Tensor, name).__doc__ == getattr(ops, name).__doc__


def test_comparing_gives_a_tensor_and_tensors_can_be_keys():
    a, b = minilm.tensor([1.0]), minilm.tensor([1.0])
    assert isinstance(a == b, Tensor)
    assert len({a: 1, b: 2}) == 2
    assert {a: 1}[a] == 1


def test_to_dtype_brings_the_gradient_back_in_its_own(rng):
    x = minilm.tensor(rng.standard_normal(3).astype(np.float32), requires_grad=True)
    for target in ("float64", np.float16, np.dtype("float64"), "bfloat16"):
        y = x.to(target)
        assert y.dtype == minilm.backend.resolve_dtype(target)
        x.zero_grad()
        (y * y).sum().backward()
        assert x.grad.dtype == np.float32
        np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy(), rtol=2e-2)
    assert x.to("float32") is x
    assert x.to("cpu") is x


@pytest.mark.parametrize("target", ["cuda:0", "flaot32", None])
def test_to_nowhere(target):
    with pytest.raises(TypeError, match=r"to\(\) takes a device, 'cpu' or 'cuda', or a dtype"):
        minilm.tensor([1.0]).to(target)


@pytest.mark.gpu
def test_to_cuda_and_back():
    x = minilm.tensor([1.0, 2.0], requires_grad=True)
    y = (x.to("cuda") * 3).to("cpu")
    y.sum().backward()
    assert x.grad.device == "cpu"
    assert x.grad.tolist() == [3, 3]


@pytest.mark.gpu
def test_mixing_devices_names_both():
    with pytest.raises(ValueError, match="cpu and cuda"):
        minilm.tensor([1.0, 2.0]).to("cuda") + minilm.tensor([1.0, 2.0])
