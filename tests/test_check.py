"""check_model: a healthy model passes, and each fault that is planted fails the check that is there for it."""

from __future__ import annotations

import numpy as np
import pytest

import minilm
from minilm import nn, ops
from minilm.autograd import Array, op
from minilm.backend import Generator, default_generator
from minilm.evaluation import CheckResult, check_model
from minilm.models import GPT2, GPT2Config
from minilm.models.gpt2 import MLP, Attention

SHAPE = {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}

FUTURE, CACHE = "no position sees the future", "cached generation equals uncached"
LEFT, RIGHT = "padding on the left changes nothing", "padding on the right changes nothing"
ALONE, LOSS = "rows of a batch do not mix", "the loss is the mean over the targets"
KERNELS, DIFFERENCES = "gradients match a float64 computation", "gradients match finite differences"
ACCUMULATION = "accumulated small batches equal one big batch"


def model_of(kind=GPT2, **changes):
    model = kind(GPT2Config(**{**SHAPE, **changes}), Generator(0))
    stream = Generator(1)
    for name, parameter in model.named_parameters():  # as after some training
        if "ln_" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.2)
    return model


def failed(model) -> set[str]:
    return {result.name for result in check_model(model, length=16) if not result.ok}


# Healthy models.


@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": False}, {"n_positions": 8, "vocab_size": 3}, {"activation_function": "relu"}],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_a_healthy_model_passes(changes):
    reported = []
    results = check_model(model_of(**changes), report=reported.append)
    assert [result.name for result in results] == [
        FUTURE, CACHE, LEFT, RIGHT, ALONE, LOSS, KERNELS, DIFFERENCES, ACCUMULATION,
    ]  # fmt: skip
    assert all(result.ok for result in results), "\n".join(map(str, results))
    assert reported == results


def test_a_fresh_and_a_trained_model_pass():
    config = GPT2Config(**SHAPE, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    model = GPT2(config, Generator(0))
    assert not failed(model)
    optimizer = minilm.optim.AdamW(model.parameters(), lr=1e-2)
    text = np.arange(400) * 7 % 50
    for step in range(200):
        batch = np.stack([text[start : start + 17] for start in range(step, step + 8)])
        loss = model(batch[:, :-1], targets=batch[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.2
    assert not failed(model)


def test_the_model_is_left_as_it_was():
    model = model_of()
    model.transformer.drop.eval()
    ids = np.arange(8)[None]
    model(ids, targets=ids).loss.backward()
    modes = [module.training for module in model.modules()]
    weights = {name: p.data.copy() for name, p in model.named_parameters()}
    gradients = {name: p.grad.data.copy() for name, p in model.named_parameters()}
    stream = default_generator.state()
    first = [str(result) for result in check_model(model)]
    assert [module.training for module in model.modules()] == modes
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, weights[name])
        np.testing.assert_array_equal(p.grad.data, gradients[name])
    assert default_generator.state() == stream
    assert [str(result) for result in check_model(model)] == first


def test_frozen_weights_are_not_asked_for_gradients():
    model = model_of()
    model.transformer.wpe.requires_grad_(False)
    assert not failed(model)


def test_results_say_what_was_measured():
    result = CheckResult("name", 2e-5, 1e-5, "detail")
    assert str(result) == "FAIL name: 2.00e-05 (at most 1e-05); detail"
    assert not CheckResult("name", float("nan"), 1e-5, "").ok
    with pytest.raises(ValueError, match=r"length is 3 .* expected 4"):
        check_model(model_of(), length=3)


# Faults in attention, the cache and the positions.

ATTENTION = (
    "packed_self_attention",
    "scaled_dot_product_attention",
)  # (qkv, n_head) without a cache, (q, k, v) with one


@pytest.mark.parametrize("ahead", [1, 99])
def test_attention_that_sees_the_future(ahead, monkeypatch):
    def leaking(attend):
        def attention(*qkv, causal, attn_mask=None, **settings):
            length, keys = qkv[0].shape[-2], qkv[min(1, len(qkv) - 2)].shape[-2]
            seen = np.arange(keys) <= np.arange(length)[:, None] + keys - length + ahead
            return attend(*qkv, causal=False, attn_mask=seen if attn_mask is None else seen & attn_mask, **settings)

        return attention

    for name in ATTENTION:
        monkeypatch.setattr(ops, name, leaking(getattr(ops, name)))
    assert FUTURE in failed(model_of())


def test_positions_that_forget_the_cache():
    class Forgetful(GPT2):
        def _positions(self, input_ids, past, length, attention_mask):
            return super()._positions(input_ids, past, length, attention_mask) - past

    assert failed(model_of(Forgetful)) == {CACHE}


def test_a_cache_that_loses_its_oldest_keys():
    class Leaky(nn.KeyValueCache):
        def append(self, layer, k, v):
            keys, values = super().append(layer, k, v)
            keys.data[:, :, :1] = 0
            return keys, values

    class Model(GPT2):
        def new_cache(self, capacity=0):
            return Leaky(self.config.n_layer, capacity)

    assert failed(model_of(Model)) == {CACHE}


def test_positions_that_count_the_padding():
    class Counting(GPT2):
        def _positions(self, input_ids, past, length, attention_mask):
            return super()._positions(input_ids, past, length, None)

    assert failed(model_of(Counting)) == {LEFT}


def test_padding_that_is_looked_at():
    class Blind(GPT2):
        def forward(self, input_ids, targets=None, attention_mask=None, **settings):
            return super().forward(input_ids, targets, None, **settings)

    assert failed(model_of(Blind)) == {LEFT}


def test_real_tokens_that_are_hidden_with_the_padding(monkeypatch):
    def short(attend):
        def attention(*qkv, key_lengths=None, **settings):
            return attend(*qkv, key_lengths=None if key_lengths is None else key_lengths - 1, **settings)

        return attention

    for name in ATTENTION:
        monkeypatch.setattr(ops, name, short(getattr(ops, name)))
    assert failed(model_of()) == {RIGHT}


# Faults elsewhere. Each of these replaces the MLP of the last layer.


def with_mlp(kind):
    model = model_of()
    old = model.transformer.h[1].mlp
    new = kind(model.config, Generator(0))
    new.load_state_dict(old.state_dict())
    model.transformer.h[1].mlp = new
    return model


@op
def twisted(x: Array, factor):
    return x + 0


@twisted.gradient
def _(g, factor):
    return g * factor


@op
def wrong_in_float32(x: Array):
    return x + 0


@wrong_in_float32.gradient
def _(g):
    return g * 1.01 if g.dtype == np.float32 else g


@op
def wrong_at_one_element(x: Array):
    return x + 0


@wrong_at_one_element.gradient
def _(g):
    g = g.copy()
    g[..., 0] = 0
    return g


@pytest.mark.parametrize("factor", [1.001, -1.0, 0.0])
def test_a_gradient_rule_with_a_wrong_factor(factor):
    class Wrong(MLP):
        def forward(self, x):
            return twisted(super().forward(x), factor)

    assert failed(with_mlp(Wrong)) == {DIFFERENCES}


def test_a_gradient_rule_that_is_wrong_in_one_column():
    class Wrong(MLP):
        def forward(self, x):
            return super().forward(wrong_at_one_element(x))

    assert failed(with_mlp(Wrong)) == {DIFFERENCES}


def test_a_gradient_that_never_arrives():
    class Detached(MLP):
        def forward(self, x):
            return super().forward(x).detach()

    assert failed(with_mlp(Detached)) == {DIFFERENCES}


def test_a_kernel_whose_gradient_is_wrong():
    class Wrong(MLP):
        def forward(self, x):
            return wrong_in_float32(super().forward(x))

    assert failed(with_mlp(Wrong)) == {KERNELS}


def test_a_gradient_that_is_nan_in_one_tensor_only():
    class Broken(Attention):
        def forward(self, x, mask, cache, attentions):
            return twisted(super().forward(x, mask, cache, attentions), float("nan"))

    model = model_of()
    old, new = model.transformer.h[1].attn, Broken(model.config, 1, None)
    new.load_state_dict(old.state_dict())
    model.transformer.h[1].attn = new
    assert {KERNELS, DIFFERENCES} <= failed(model)


def test_rows_that_mix():
    class Mixing(MLP):
        def forward(self, x):
            y = super().forward(x)
            return y + 0.01 * y.mean(axis=0, keepdims=True)

    found = failed(with_mlp(Mixing))
    assert ALONE in found
    assert FUTURE not in found


def test_a_loss_that_is_a_sum():
    class Sum(GPT2):
        def forward(self, input_ids, targets=None, **settings):
            out = super().forward(input_ids, targets, **settings)
            if targets is not None:
                out.loss = ops.cross_entropy(out.logits, targets, reduction="sum")
            return out

    assert failed(model_of(Sum)) == {LOSS, ACCUMULATION}


def test_a_loss_that_counts_ignored_targets():
    class Diluted(GPT2):
        def forward(self, input_ids, targets=None, **settings):
            out = super().forward(input_ids, targets, **settings)
            if targets is not None:
                out.loss = out.loss * float((targets != -100).mean())
            return out

    assert failed(model_of(Diluted)) == {LOSS}


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"check_model takes a model, a minilm\.nn\.Module, not a dict"):
        check_model({})
