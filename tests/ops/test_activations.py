"""Activations: gradients, parity, and the ends of the number line."""

import numpy as np
import pytest

import minilm
from minilm import ops

APART = np.random.default_rng(2).permutation(15).reshape(3, 5) / 3 - 2.4  # none at a kink


def _functional(name, **settings):
    def call(x):
        import torch

        return getattr(torch.nn.functional, name)(x, **settings)

    return call


def _gelu_tanh(*inputs):
    return ops.gelu(*inputs, approximate="tanh")


CASES = {
    "sigmoid": (ops.sigmoid, [(3, 5)], _functional("sigmoid")),
    "relu": (ops.relu, [APART], _functional("relu")),
    "silu": (ops.silu, [(3, 5)], _functional("silu")),
    "softplus": (ops.softplus, [APART], _functional("softplus")),
    "gelu": (ops.gelu, [(3, 5)], _functional("gelu")),
    "gelu, tanh": (_gelu_tanh, [(3, 5)], _functional("gelu", approximate="tanh")),
    "gelu and a bias": (ops.gelu, [(2, 3, 5), (5,)], lambda x, bias: _functional("gelu")(x + bias)),
    "gelu and a bias, tanh": (
        _gelu_tanh,
        [(3, 17), (17,)],
        lambda x, bias: _functional("gelu", approximate="tanh")(x + bias),
    ),
    "gelu and a bias, no rows": (ops.gelu, [(0, 5), (5,)], lambda x, bias: _functional("gelu")(x + bias)),
    "gelu, empty": (ops.gelu, [(0, 5)], _functional("gelu")),
    "gelu, length 1": (ops.gelu, [(1,)], _functional("gelu")),
    "gelu, without axes": (ops.gelu, [()], _functional("gelu")),
    "swiglu": (ops.swiglu, [(3, 5), (3, 5)], lambda gate, up: _functional("silu")(gate) * up),
    "swiglu, empty": (ops.swiglu, [(0, 5), (0, 5)], None),
    "swiglu, without axes": (ops.swiglu, [(), ()], None),
    "swiglu of one": (lambda x: ops.swiglu(x, x), [(4,)], None),
    "silu, empty": (ops.silu, [(0,)], None),
    "sigmoid, without axes": (ops.sigmoid, [()], None),
}


@pytest.mark.parametrize("name", CASES)
def test_activation(name, check):
    check(*CASES[name])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sigmoid", "silu", "softplus", "gelu", "relu"])
def test_far_out_nothing_overflows_and_no_digit_is_lost(name, dtype, torch, device):
    values = np.array([-1000, -90, -30, -20, -1e-8, 0, 1e-8, 20, 90, 1000], dtype)
    x = minilm.tensor(values, requires_grad=True, device=device)
    with np.errstate(under="ignore"):
        y = getattr(ops, name)(x)
        y.backward(np.ones_like(values))
    theirs = torch.tensor(values, requires_grad=True)
    expected = getattr(torch.nn.functional, name)(theirs)
    expected.sum().backward()
    rtol = 1e-5 if dtype == "float32" else 1e-13
    # torch's gelu loses the small numbers of its left tail, and its softplus is linear from 20 on.
    atol = {"gelu": 1e-6, "softplus": 3e-9}.get(name, 1e-37)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=rtol, atol=atol)
    at = ~((values == 0) & (name == "relu"))
    np.testing.assert_allclose(x.grad.numpy()[at], theirs.grad.numpy()[at], rtol=rtol, atol=atol)


def test_relu_has_slope_zero_at_zero(device):
    x = minilm.tensor([0.0], requires_grad=True, device=device)
    ops.relu(x).backward()
    assert x.grad.tolist() == [0]


def test_gelu_refuses_an_unknown_form():
    with pytest.raises(ValueError, match="tanh"):
        ops.gelu(minilm.tensor([1.0]), approximate="sigmoid")
