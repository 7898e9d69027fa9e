"""Tensors as objects: copies, conversions, who may require a gradient."""

import copy

import numpy as np
import pytest
from leaves import leaf

import minilm
from minilm import no_grad


def test_leaves_copy_deeply_and_others_refuse():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    twin = copy.deepcopy({"a": x, "b": x})
    assert twin["a"] is twin["b"]
    assert twin["a"].requires_grad
    assert twin["a"].grad.tolist() == [2, 4]
    twin["a"].data[0] = 9
    twin["a"].grad.data[0] = 9
    assert x.tolist() == [1, 2]
    assert x.grad.tolist() == [2, 4]
    with pytest.raises(RuntimeError, match="only leaf tensors can be deep-copied"):
        copy.deepcopy(x * 2)


def test_detach_shares_memory_and_no_history():
    x = leaf([1.0, 2.0])
    y = (x * 2).detach()
    assert y.is_leaf
    assert not y.requires_grad
    assert np.shares_memory(x.detach().data, x.data)


def test_requires_grad_is_for_floating_leaves(device):
    with pytest.raises(TypeError, match="floating-point tensors can require a gradient; this one is int64"):
        minilm.tensor([1], requires_grad=True, device=device)
    with pytest.raises(TypeError, match="int64"):
        minilm.tensor([1], device=device).requires_grad_()
    with pytest.raises(ValueError, match=r"detach\(\) first"):
        (leaf([1.0]) * 2).requires_grad_(False)
    x = minilm.tensor([1.0], device=device).requires_grad_()
    assert x.requires_grad
    assert not x.requires_grad_(False).requires_grad
    assert minilm.tensor([1.0], dtype="bfloat16", requires_grad=True, device=device).requires_grad


def test_backward_without_a_graph(device):
    with pytest.raises(ValueError, match="does not require a gradient"):
        minilm.tensor(1.0, device=device).backward()
    with no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(ValueError, match=r"made under no_grad\(\)"):
        y.backward()


def test_conversions(device):
    x = leaf(2.5)
    assert float(x) == 2.5
    assert int(x) == 2
    assert f"{x:.3f}" == "2.500"
    assert bool(x)
    assert [10, 20, 30][minilm.tensor(1, device=device)] == 20
    assert np.asarray(x) == 2.5
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    assert len(leaf([1.0, 2.0])) == 2
    assert [t.item() for t in leaf([1.0, 2.0])] == [1, 2]
    for call, error, message in [
        (lambda: leaf([1.0, 2.0]).item(), ValueError, "one element"),
        (lambda: bool(leaf([1.0, 2.0])), ValueError, "ambiguous"),
        (lambda: len(x), TypeError, "no length"),
        (lambda: [1][x], TypeError, "integer tensors"),
        (lambda: np.exp(x), TypeError, "use minilm.ops.exp"),
        (lambda: minilm.tensor("text", device=device), TypeError, "holds numbers"),
        (lambda: setattr(x, "data", x), TypeError, "raw array"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_repr_says_what_matters():
    x = leaf([1.0])
    assert repr(x) == "tensor([1.], dtype=float64, requires_grad=True)"
    assert repr(x * 2) == "tensor([2.], dtype=float64, made by multiply)"
    assert repr(minilm.tensor([1.0])) == "tensor([1.])"
