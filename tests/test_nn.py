"""The layers: the same numbers as torch's, how they begin, and attention with its caches."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import minilm
from minilm import nn, ops
from minilm.autograd import gradcheck


def array(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# The layers.


def test_linear_embedding_and_norms_equal_torch(torch):
    x = array(2, 5, 6)
    ids = np.array([[1, 0], [7, 7]])
    pairs = [
        (nn.Linear(6, 3), torch.nn.Linear(6, 3), x),
        (nn.Linear(6, 3, bias=False), torch.nn.Linear(6, 3, bias=False), x),
        (nn.LayerNorm(6, eps=1e-3), torch.nn.LayerNorm(6, eps=1e-3), x),
        (nn.LayerNorm(6, bias=False), torch.nn.LayerNorm(6, bias=False), x),
        (nn.RMSNorm(6, eps=1e-3), torch.nn.RMSNorm(6, eps=1e-3), x),
        (nn.Embedding(8, 6), torch.nn.Embedding(8, 6), ids),
    ]
    for ours, theirs, value in pairs:
        weights = {name: array(*p.shape, seed=3) for name, p in ours.named_parameters()}
        ours.load_state_dict(weights)
        theirs.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
        given = minilm.tensor(value, requires_grad=value.dtype == np.float32)
        given_torch = torch.from_numpy(value).requires_grad_(value.dtype == np.float32)
        out, expected = ours(given), theirs(given_torch)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
        (out**2).sum().backward()
        (expected**2).sum().backward()
        for name, p in ours.named_parameters():
            wanted = dict(theirs.named_parameters())[name].grad.numpy()
            np.testing.assert_allclose(p.grad.data, wanted, rtol=1e-4, atol=1e-5, err_msg=f"{ours} {name}")
        if given.requires_grad:
            np.testing.assert_allclose(given.grad.data, given_torch.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_conv1d_is_a_linear_with_its_weight_the_other_way_round():
    layer = nn.Conv1D(3, 4)
    assert layer.weight.shape == (3, 4)
    layer.bias.data = array(4)
    x = array(2, 3)
    np.testing.assert_allclose(layer(x).data, x @ layer.weight.data + layer.bias.data, rtol=1e-5, atol=1e-6)


def test_dropout_is_identity_in_eval_and_right_in_expectation():
    layer, x = nn.Dropout(0.3, minilm.backend.Generator(1)), np.ones((200, 500), np.float32)
    out = layer(minilm.tensor(x)).data
    kept = np.float32(1 / 0.7)
    assert set(np.unique(out)) == {np.float32(0), kept}
    assert abs((out == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    assert not np.array_equal(out, layer(minilm.tensor(x)).data)  # the stream goes on
    given = minilm.tensor(x)
    assert layer.eval()(given) is given
    for p in (-0.1, 1.5):
        with pytest.raises(ValueError, match="probability"):
            nn.Dropout(p)


@pytest.mark.parametrize("name", sorted(nn.ACTIVATIONS))
def test_feed_forward_is_down_of_activation_of_up(name):
    layer, x = nn.FeedForward(6, 10, activation_function=name), array(2, 3, 6)
    inside = nn.activation(name)(layer.up_proj(minilm.tensor(x)))
    np.testing.assert_allclose(layer(minilm.tensor(x)).data, layer.down_proj(inside).data, rtol=1e-5, atol=1e-6)
    assert layer.up_proj.weight.shape == (10, 6)
    assert nn.FeedForward(6).up_proj.weight.shape == (24, 6)


@pytest.mark.parametrize("layer", [nn.Linear(6, 10), nn.Linear(6, 10, bias=False), nn.Conv1D(6, 10)])
@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu"])
def test_a_linear_layer_applies_an_activation(layer, name):
    layer.to("float64")
    if layer.bias is not None:
        layer.bias.data[:] = np.linspace(-1, 1, 10)
    x, function = minilm.tensor(array(2, 3, 6).astype(np.float64), requires_grad=True), nn.activation(name)
    expected = function(layer(x))
    y = layer(x, function)
    np.testing.assert_allclose(y.data, expected.data, atol=1e-14)
    given = [x, *layer.parameters()]
    for ours, theirs in zip(minilm.grad(y.sum(), given), minilm.grad(expected.sum(), given)):
        np.testing.assert_allclose(ours.data, theirs.data, atol=1e-13)


def test_activations_equal_torch_and_unknown_ones_are_refused(torch):
    f = torch.nn.functional
    peers = {
        "gelu": f.gelu, "relu": f.relu, "sigmoid": torch.sigmoid, "silu": f.silu, "swish": f.silu, "tanh": torch.tanh,
        "gelu_new": partial(f.gelu, approximate="tanh"), "gelu_pytorch_tanh": partial(f.gelu, approximate="tanh"),
    }  # fmt: skip
    assert peers.keys() == nn.ACTIVATIONS.keys()
    x = array(50) * 3
    for name, peer in peers.items():
        ours = nn.activation(name)(minilm.tensor(x)).data
        np.testing.assert_allclose(ours, peer(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    with pytest.raises(ValueError, match="no activation is named 'gelu_fast'; there are: gelu"):
        nn.activation("gelu_fast")


@pytest.mark.parametrize("norm", [nn.LayerNorm(6, eps=1e-3), nn.LayerNorm(6, bias=False), nn.RMSNorm(6)])
def test_a_norm_adds_to_a_residual_stream_first(norm):
    random = np.random.default_rng(0)
    x, residual = (minilm.tensor(random.standard_normal((2, 3, 6)), requires_grad=True) for _ in range(2))
    norm.to("float64")
    y, total = norm(x, residual)
    np.testing.assert_allclose(total.numpy(), x.numpy() + residual.numpy())
    np.testing.assert_allclose(y.numpy(), norm(total).numpy(), atol=1e-12)
    found = minilm.grad((y * y + 3 * total).sum(), [x, residual, norm.weight])
    plain = x + residual
    wanted = minilm.grad((norm(plain) ** 2 + 3 * plain).sum(), [x, residual, norm.weight])
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-10)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_a_narrow_norm_has_autocasts_dtype(kind, dtype):
    """Read by a product, which would have cast its result: the same comes out, and back."""
    random = np.random.default_rng(0)
    x, residual = (minilm.tensor(random.standard_normal((5, 6)).astype("float32"), requires_grad=True) for _ in "xr")
    weight = minilm.tensor(random.standard_normal((6, 6)).astype("float32"), requires_grad=True)
    found = []
    for narrow in (True, False):
        norm = kind(6, narrow=narrow)
        assert norm(x).dtype == np.float32
        with minilm.autocast(dtype):
            alone = norm(x)
            y, total = norm(x, residual)
            assert total.dtype == np.float32
            assert {alone.dtype.name, y.dtype.name} == {dtype if narrow else "float32"}
            loss = ops.linear(alone, weight).sum() + ops.linear(y, weight).sum() + total.sum()
        found.append([y.numpy() for y in minilm.grad(loss, [x, residual, weight, norm.weight])])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=0.02, atol=0.02)
    wide = minilm.tensor(np.ones((2, 6)))
    with minilm.autocast(dtype):
        assert kind(6, narrow=True).to("float64")(wide).dtype == np.float64


def test_layers_begin_as_documented():
    stream = minilm.backend.Generator(0)
    bound = 1 / np.sqrt(400)
    weight = nn.Linear(400, 300, generator=stream).weight.data
    assert bound * 0.99 < np.abs(weight).max() <= bound
    assert abs(weight.mean()) < 0.01 * bound
    assert abs(nn.Embedding(100, 200, std=0.5, generator=stream).weight.data.std() - 0.5) < 0.02
    norm = nn.LayerNorm(5)
    np.testing.assert_array_equal(norm.weight.data, np.ones(5))
    np.testing.assert_array_equal(norm.bias.data, np.zeros(5))
    first, second = (nn.Linear(4, 4, generator=minilm.backend.Generator(7)).weight.data for _ in range(2))
    np.testing.assert_array_equal(first, second)


# Attention.


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_equals_torch(causal, torch):
    layer, peer = nn.MultiHeadAttention(12, 3, causal=causal), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    parts = [layer.q_proj, layer.k_proj, layer.v_proj]
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.from_numpy(np.concatenate([p.weight.data for p in parts])))
        peer.in_proj_bias.copy_(torch.from_numpy(np.concatenate([p.bias.data for p in parts])))
        peer.out_proj.weight.copy_(torch.from_numpy(layer.out_proj.weight.data))
        peer.out_proj.bias.copy_(torch.from_numpy(layer.out_proj.bias.data))
    x, mask = array(2, 5, 12), np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    triangle = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    given = torch.from_numpy(x)
    expected, _ = peer(given, given, given, key_padding_mask=torch.from_numpy(mask == 0), attn_mask=triangle)
    out = layer(minilm.tensor(x), attention_mask=mask)
    np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    if not causal:
        memory = array(2, 7, 12, seed=1)
        expected, _ = peer(given, torch.from_numpy(memory), torch.from_numpy(memory))
        np.testing.assert_allclose(
            layer(minilm.tensor(x), minilm.tensor(memory)).data, expected.detach().numpy(), rtol=1e-4, atol=1e-5
        )


def test_shared_key_heads_equal_the_same_heads_repeated():
    shared, full = nn.MultiHeadAttention(8, 4, n_kv_head=2), nn.MultiHeadAttention(8, 4)
    weights = {}
    for name, value in shared.state_dict().items():
        if name.startswith(("k_proj", "v_proj")):
            heads = value.reshape(2, 2, *value.shape[1:])
            value = np.repeat(heads, 2, axis=0).reshape(8, *value.shape[1:])
        weights[name] = value
    full.load_state_dict(weights)
    x = minilm.tensor(array(2, 5, 8))
    np.testing.assert_allclose(shared(x).data, full(x).data, rtol=1e-5, atol=1e-6)


def test_attention_with_a_cache_equals_attention_at_once():
    layer = nn.MultiHeadAttention(8, 2, causal=True).eval()
    x = minilm.tensor(array(2, 6, 8))
    cache = nn.KeyValueCache(1, capacity=2)
    with minilm.no_grad():
        at_once = layer(x).data
        pieces = [layer(x[:, part], cache=cache).data for part in (slice(0, 3), slice(3, 4), slice(4, 6))]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), at_once, rtol=1e-5, atol=1e-6)
    assert len(cache) == 6


def test_a_cache_refuses_gradients_other_batches_and_memories():
    layer, cache = nn.MultiHeadAttention(8, 2), nn.KeyValueCache(1)
    x = minilm.tensor(array(2, 3, 8))
    with pytest.raises(RuntimeError, match="no_grad"):
        layer(x, cache=cache)
    with minilm.no_grad():
        layer(x, cache=cache)
        with pytest.raises(ValueError, match="the cache holds keys and values like"):
            layer(x[:1], cache=cache)
        with pytest.raises(ValueError, match="memory"):
            layer(x, memory=x, cache=cache)


def test_select_reorders_the_rows_of_a_cache():
    cache = nn.KeyValueCache(2)
    k, v = (minilm.tensor(array(3, 1, 2, 4, seed=s)) for s in (0, 1))
    for layer in range(2):
        cache.append(layer, k, v)
    cache.select([2, 2, 0, 1])
    more = minilm.tensor(np.zeros((4, 1, 1, 4), np.float32))
    keys, values = cache.append(1, more, more)
    np.testing.assert_array_equal(keys.data[:, :, :2], k.data[[2, 2, 0, 1]])
    np.testing.assert_array_equal(values.data[:, :, :2], v.data[[2, 2, 0, 1]])


def test_masks_that_cannot_be_meant_are_refused():
    layer, x = nn.MultiHeadAttention(8, 2), minilm.tensor(array(2, 3, 8))
    with pytest.raises(ValueError, match=r"must be \(2, 3\).*got \(2, 4\)"):
        layer(x, attention_mask=np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"must be \(2, 3\).*got \(1, 3\)"):
        layer(x, attention_mask=np.ones((1, 3)))
    with pytest.raises(ValueError, match="1 for tokens to see and 0 for padding"):
        layer(x, attention_mask=np.array([[0, 0, -np.inf]] * 2))
    for sizes in ((7, 2), (8, 4, 3)):
        with pytest.raises(ValueError, match="multiple"):
            nn.MultiHeadAttention(*sizes)


@pytest.mark.parametrize("mask", [None, [[1, 1, 0], [1, 1, 1]], [[0, 1, 1], [1, 0, 1]]])
def test_gradients_of_attention(mask):
    layer = nn.MultiHeadAttention(4, 2, n_kv_head=1, causal=True, generator=minilm.backend.Generator(3)).to("float64")
    x = minilm.tensor(array(2, 3, 4, dtype=np.float64), requires_grad=True)
    mask = None if mask is None else np.array(mask)

    def run(x, weight):
        layer.k_proj.weight = weight
        return layer(x, attention_mask=mask)

    assert gradcheck(run, [x, minilm.tensor(array(2, 4, dtype=np.float64, seed=5), requires_grad=True)])


def test_modules_that_are_given_otherwise_are_told_how():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"Sequential holds modules; got list; .* Sequential\(\*modules\)"):
        nn.Sequential([a, b])
    for wrong in ((a, b), (a,)):
        with pytest.raises(TypeError, match=r"takes its modules in a list: ModuleList\(\[a, b\]\)"):
            nn.ModuleList(*wrong)
    assert len(nn.ModuleList(nn.Sequential(a, b))) == 2
