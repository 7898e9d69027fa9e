"""Module: the tree and its names, weights in and out, modes and moves, hooks, containers."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minilm
from minilm import nn


class Block(nn.Module):
    """A little of everything: a parameter of its own, children, buffers of both kinds."""

    def __init__(self):
        self.inner = nn.Linear(3, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Dropout(0.5)])
        self.scale = nn.Parameter(np.ones(4, np.float32))
        self.register_buffer("mean", np.zeros(4, np.float32))
        self.register_buffer("scratch", np.zeros(2, np.float32), persistent=False)

    def forward(self, x):
        return self.layers[1](self.layers[0](self.inner(x))) * self.scale + self.mean


class Tied(nn.Module):
    def __init__(self):
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


def array(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# The tree.


def test_names_of_parameters_buffers_and_modules():
    block = Block()
    names = ["scale", "inner.weight", "inner.bias", "layers.0.weight", "layers.0.bias"]
    assert [name for name, _ in block.named_parameters()] == names
    assert dict(block.named_buffers()).keys() == {"mean", "scratch"}
    assert block.state_dict().keys() == {*names, "mean"}
    assert [name for name, _ in block.named_modules()] == ["", "inner", "layers", "layers.0", "layers.1"]
    assert list(block.children()) == [block.inner, block.layers]
    assert [name for name, _ in block.named_children()] == ["inner", "layers"]
    assert block.n_parameters == 4 + 16 + 20
    assert all(p.requires_grad for p in block.parameters())


def test_a_shared_parameter_is_listed_once_and_loads_under_either_name():
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == ["first.weight"]
    assert len(list(model.named_parameters(remove_duplicate=False))) == 2
    assert model.state_dict().keys() == {"first.weight"}
    value = array(3, 3)
    assert model.load_state_dict({"second.weight": value}) == ([], [])
    np.testing.assert_array_equal(model.first.weight.data, value)


def test_a_shared_parameter_gets_the_gradients_of_both_uses():
    model = Tied()
    twin = Tied()
    twin.second.weight = nn.Parameter(model.first.weight.data.copy())
    twin.first.weight.data = model.first.weight.data.copy()
    x = array(5, 3)
    model(minilm.tensor(x)).sum().backward()
    twin(minilm.tensor(x)).sum().backward()
    both = twin.first.weight.grad.data + twin.second.weight.grad.data
    np.testing.assert_allclose(model.first.weight.grad.data, both, rtol=1e-6)


@pytest.mark.parametrize("many", [[nn.Linear(1, 1)], (nn.Linear(1, 1),), {"a": nn.Linear(1, 1)}, [nn.Parameter([1.0])]])
def test_a_plain_container_of_modules_is_refused(many):
    module = nn.Module()
    with pytest.raises(TypeError, match=r"Module.layers is a plain .* nn.ModuleList"):
        module.layers = many
    module.sizes = [1, 2]  # other lists are nobody's business


# Weights in and out.


def test_load_state_dict_copies_and_checks_before_it_writes():
    source, target = Block(), Block()
    target.load_state_dict(source.state_dict())
    for name, value in source.state_dict().items():
        np.testing.assert_array_equal(target.state_dict()[name], value)
        assert target.state_dict()[name] is not value
    before = {name: value.copy() for name, value in target.state_dict().items()}
    wrong = {**source.state_dict(), "scale": np.zeros(5, np.float32), "inner.bias": np.zeros((4, 1), np.float32)}
    wrong["inner.weight"] = wrong["inner.weight"] + 1
    with pytest.raises(ValueError, match=r"scale is \(5,\), expected \(4,\)") as caught:
        target.load_state_dict(wrong)
    assert "inner.bias is (4, 1), expected (4,)" in str(caught.value)
    for name, value in before.items():
        np.testing.assert_array_equal(target.state_dict()[name], value)


def test_load_state_dict_names_what_is_missing_and_what_is_unexpected():
    block, state = Block(), Block().state_dict()
    del state["mean"], state["inner.weight"]
    state["other"] = np.zeros(1, np.float32)
    with pytest.raises(KeyError, match=r"Block. Missing: inner.weight, mean. Unexpected: other. .*strict=False"):
        block.load_state_dict(state)
    assert block.load_state_dict(state, strict=False) == (["inner.weight", "mean"], ["other"])
    np.testing.assert_array_equal(block.scale.data, state["scale"])


@pytest.mark.parametrize(("state", "kind"), [("model.safetensors", "str"), (nn.Linear(2, 2), "Linear")])
def test_load_state_dict_of_what_is_no_dict_says_how_to_make_one(state, kind):
    with pytest.raises(TypeError, match=rf"not a {kind}; .*load_weights\(path\).*, model\.state_dict\(\)"):
        nn.Linear(2, 2).load_state_dict(state)


def test_loading_keeps_the_dtype_of_the_module_and_counts_as_a_change_in_place():
    layer = nn.Linear(2, 2)
    loss = (layer(minilm.tensor(array(3, 2), requires_grad=True)) ** 2).sum()
    layer.load_state_dict({"weight": np.eye(2), "bias": np.zeros(2, np.float16)})
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


# Modes, moves.


def test_train_and_eval_reach_all_modules_and_eval_mode_restores_each():
    block = Block()
    assert block.eval() is block
    assert not any(module.training for module in block.modules())
    block.train()
    block.layers[1].eval()
    with nn.eval_mode(block):
        assert not any(module.training for module in block.modules())
    assert [module.training for module in block.modules()] == [True, True, True, True, False]
    with pytest.raises(ZeroDivisionError), nn.eval_mode(block):
        1 / 0  # noqa: B018
    assert block.training


def test_to_converts_floating_point_and_takes_gradients_along():
    block = Block()
    block.register_buffer("count", np.array([3]))
    block.eval()(minilm.tensor(array(2, 3))).sum().backward()
    gradient = block.scale.grad.data.copy()
    assert block.to("float64") is block
    assert {p.dtype.name for p in block.parameters()} == {"float64"}
    assert block.mean.dtype == np.float64
    assert block.count.dtype == np.int64
    assert block.scale.grad.dtype == np.float64
    np.testing.assert_array_equal(block.scale.grad.data, gradient)
    data = block.scale.data
    block.to("cpu").to("float64")
    assert block.scale.data is data  # nothing to do
    assert block.device == "cpu"
    assert nn.Module().device == "cpu"


@pytest.mark.parametrize("target", ["gpu", "int64", np.int32, 3])
def test_to_refuses_what_is_no_device_and_no_float(target):
    with pytest.raises(TypeError, match="dtype"):
        nn.Linear(2, 2).to(target)


def test_zero_grad_requires_grad_and_apply():
    block = Block().eval()
    block(minilm.tensor(array(2, 3))).sum().backward()
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())
    block.inner.requires_grad_(False)
    block(minilm.tensor(array(2, 3))).sum().backward()
    assert block.inner.weight.grad is None
    assert block.scale.grad is not None
    seen = []
    assert block.apply(lambda module: seen.append(module)) is block
    assert sorted(map(id, seen)) == sorted(map(id, block.modules()))
    assert seen.index(block.layers[0]) < seen.index(block.layers) < seen.index(block)


def test_a_deep_copy_has_weights_of_its_own_and_keeps_sharing():
    model = Tied()
    twin = copy.deepcopy(model)
    assert isinstance(twin.first.weight, nn.Parameter)
    assert twin.first.weight is twin.second.weight
    assert twin.first.weight is not model.first.weight
    twin.first.weight.data += 1
    np.testing.assert_allclose(twin.first.weight.data, model.first.weight.data + 1)


def test_repr_shows_the_tree():
    assert repr(nn.Linear(3, 4)) == "Linear(3, 4, bias=True)"
    assert repr(nn.Sequential(nn.Linear(3, 4, bias=False), nn.Dropout(0.1))).splitlines() == [
        "Sequential(",
        "  (0): Linear(3, 4, bias=False)",
        "  (1): Dropout(p=0.1)",
        ")",
    ]
    attention = repr(nn.MultiHeadAttention(8, 2, causal=True))
    assert "n_head=2, n_kv_head=2, causal=True" in attention
    assert "  (q_proj): Linear(8, 8, bias=True)" in attention


# Hooks.


def test_hooks_see_and_replace_what_goes_in_and_out():
    layer, x = nn.Linear(2, 2), array(3, 2)
    plain = layer(x)
    seen = []
    removers = [
        layer.register_forward_pre_hook(lambda module, args: seen.append((module, args))),
        layer.register_forward_pre_hook(lambda module, args: args[0] * 2),
        layer.register_forward_hook(lambda module, args, out: seen.append((args, out))),
        layer.register_forward_hook(lambda module, args, out: -out),
    ]
    out = layer(x)
    doubled = layer.forward(x * 2)
    np.testing.assert_allclose(out.data, -doubled.data, rtol=1e-6)
    assert seen[0][0] is layer
    assert seen[0][1][0] is x
    np.testing.assert_array_equal(seen[1][0][0], x * 2)
    for remove in removers:
        remove()
        remove()  # taking it off twice does no harm
    np.testing.assert_array_equal(layer(x).data, plain.data)
    assert len(seen) == 2


def test_a_module_without_forward_says_so():
    with pytest.raises(TypeError, match="ModuleList defines no forward"):
        nn.ModuleList()(1)


# Containers.


def test_module_list_and_sequential():
    a, b, c = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5)
    layers = nn.ModuleList([a, b]).append(c)
    assert len(layers) == 3
    assert list(layers) == [a, b, c]
    assert layers[-1] is c
    assert list(layers[1:]) == [b, c]
    assert type(layers[1:]) is nn.ModuleList
    d = nn.Linear(4, 6)
    layers[-1] = d
    assert list(layers) == [a, b, d]
    with pytest.raises(IndexError):
        layers[3] = d
    with pytest.raises(TypeError, match="holds modules"):
        layers.append("relu")
    chain, x = nn.Sequential(a, b, c), array(7, 2)
    np.testing.assert_array_equal(chain(x).data, c(b(a(x))).data)
    np.testing.assert_array_equal(chain[:2](x).data, b(a(x)).data)
    assert type(chain[:2]) is nn.Sequential
