"""GPT-2: the same logits, loss, gradients and training as transformers', and what only ours promises."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tiny_gpt2 import TINY, tiny, tokens

import minilm
from minilm import nn
from minilm.autograd import gradcheck
from minilm.checkpoint import load_weights
from minilm.models import GPT2, GPT2Config
from minilm.optim import AdamW, decay_groups

NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}


def peer_of(model, transformers, folder):
    """transformers' model from our files; loading must find each name, and no other."""
    model.save_pretrained(folder)
    peer, info = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return peer.eval()


# Parity.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"n_inner": 40, "activation_function": "relu", "layer_norm_epsilon": 1e-3},
        {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"},
        {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False, "n_head": 1},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_files_go_to_transformers_and_back_with_the_same_logits_loss_and_gradients(
    changes, transformers, torch, tmp_path
):
    model = tiny(**changes)
    peer = peer_of(model, transformers, tmp_path / "ours")
    assert model.n_parameters == peer.num_parameters()
    ids = tokens(2, 12)
    out = model(ids[:, :-1], targets=ids[:, 1:])
    given = torch.from_numpy(ids)
    expected = peer(given[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), given[:, 1:].flatten())
    np.testing.assert_allclose(out.logits.data, expected.detach().numpy(), atol=2e-5, rtol=2e-5)
    assert out.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    out.loss.backward()
    loss.backward()
    theirs = dict(peer.named_parameters())
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad.data, theirs[name].grad.numpy(), rtol=1e-3, atol=2e-5, err_msg=name)

    peer.save_pretrained(tmp_path / "theirs")
    back = GPT2.from_pretrained(tmp_path / "theirs")
    assert not back.training
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], value)
    same = set(TINY) | set(changes)
    assert all(getattr(back.config, name) == getattr(model.config, name) for name in same)


def test_a_fresh_model_of_transformers_loads(transformers, torch, tmp_path):
    config = transformers.GPT2Config(**TINY, bos_token_id=1, eos_token_id=[2, 3])
    peer = transformers.GPT2LMHeadModel(config).eval()
    peer.save_pretrained(tmp_path)
    model = GPT2.from_pretrained(tmp_path)
    ids = tokens(3, 16)
    with torch.no_grad():
        expected = peer(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(model(ids).logits.data, expected, atol=2e-5)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (1, [2, 3])


def test_the_base_model_of_transformers_loads_too(transformers, torch, tmp_path):
    peer = transformers.GPT2Model(transformers.GPT2Config(**TINY)).eval()
    peer.save_pretrained(tmp_path)
    assert "wte.weight" in load_weights(tmp_path / "model.safetensors")  # names without the prefix
    model, ids = GPT2.from_pretrained(tmp_path), tokens(2, 5)
    with torch.no_grad():
        hidden = peer(torch.from_numpy(ids)).last_hidden_state.numpy()
    np.testing.assert_allclose(model.transformer(ids, np.arange(5), {}, None).data, hidden, atol=2e-5)


def test_padding_equals_transformers_with_the_positions_of_its_generate(transformers, torch, tmp_path):
    model = tiny()
    peer = peer_of(model, transformers, tmp_path)
    ids = tokens(3, 8)
    for mask in ([[1] * 8, [0] * 3 + [1] * 5, [0] * 7 + [1]], [[1] * 8, [1] * 3 + [0] * 5, [1] + [0] * 7]):
        mask = np.array(mask)
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        given = {"attention_mask": torch.from_numpy(mask), "position_ids": torch.from_numpy(positions)}
        with torch.no_grad():
            expected = peer(torch.from_numpy(ids), **given).logits.numpy()
        ours = model(ids, attention_mask=mask).logits.data
        np.testing.assert_allclose(ours[mask == 1], expected[mask == 1], atol=2e-5)
        explicit = model(ids, attention_mask=mask, position_ids=positions).logits.data
        np.testing.assert_array_equal(ours, explicit)


def test_training_follows_torch_for_a_hundred_steps(transformers, torch, tmp_path):
    model = GPT2(GPT2Config(**{**TINY, **NO_DROPOUT}), minilm.backend.Generator(0))
    peer = peer_of(model, transformers, tmp_path).train()
    groups = decay_groups(model.named_parameters(), weight_decay=0.1)
    theirs = dict(peer.named_parameters())
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8}
    optimizer = AdamW(groups, **settings)
    copied = [
        {"params": [theirs[named[id(p)]] for _, p in group["params"]], "weight_decay": group["weight_decay"]}
        for group in groups
    ]
    other = torch.optim.AdamW(copied, **settings)
    assert sum(len(group["params"]) for group in copied) == len(theirs)
    text = tokens(200)
    stream = np.random.default_rng(1)
    ours_losses, their_losses = [], []
    for _ in range(100):
        batch = np.stack([text[start : start + 17] for start in stream.integers(0, 183, 4)])
        loss = model(batch[:, :-1], targets=batch[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ours_losses.append(loss.item())
        given = torch.from_numpy(batch)
        loss = torch.nn.functional.cross_entropy(peer(given[:, :-1]).logits.flatten(0, 1), given[:, 1:].flatten())
        loss.backward()
        other.step()
        other.zero_grad()
        their_losses.append(loss.item())
    assert ours_losses[-1] < 0.7 * ours_losses[0]  # it learns
    np.testing.assert_allclose(ours_losses, their_losses, rtol=1e-4)


# forward.


def test_attention_in_float32_for_half_precision():
    """Scores so large that bfloat16 can't tell the keys apart: upcast, they are told apart."""
    ids = tokens(2, 12)
    plain, upcast = tiny(), tiny(reorder_and_upcast_attn=True)
    for model in (plain, upcast):
        model.load_state_dict(tiny().state_dict())
    np.testing.assert_array_equal(plain(ids).logits.data, upcast(ids).logits.data)  # nothing to do in float32
    attention = upcast.transformer.h[0].attn.to("bfloat16")
    x = minilm.tensor(minilm.backend.Generator(0).normal((2, 12, TINY["n_embd"]))).to("bfloat16")
    qkv = attention.c_attn(x).numpy().astype(np.float32)
    exact = minilm.ops.packed_self_attention(qkv, TINY["n_head"], causal=True).astype(x.dtype)
    expected = attention.c_proj(minilm.tensor(exact)).numpy()
    np.testing.assert_array_equal(attention(x, {}, None).numpy(), expected)
    cache = minilm.nn.KeyValueCache(1)
    with minilm.no_grad():
        np.testing.assert_array_equal(attention(x, {}, cache).numpy(), expected)
        assert (
            cache.append(0, *[minilm.tensor(np.zeros((2, TINY["n_head"], 1, 8), np.float32))] * 2)[0].dtype
            == np.float32
        )
    with minilm.autocast("bfloat16"):
        out = upcast(ids, targets=ids)
    out.loss.backward()
    assert upcast.transformer.h[1].attn.c_attn.weight.grad.dtype == np.float32


def test_weights_begin_as_gpt2s():
    config = GPT2Config(**{**TINY, "vocab_size": 500, "n_embd": 96})
    weights = GPT2(config, minilm.backend.Generator(0)).state_dict()
    for name, value in weights.items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif "ln_" in name:
            assert (value == 1).all(), name
        else:
            expected = 0.02 / np.sqrt(2 * config.n_layer) if name.endswith("c_proj.weight") else 0.02
            assert value.std() == pytest.approx(expected, rel=0.05), name
    again = GPT2(config, minilm.backend.Generator(0)).state_dict()
    assert all(np.array_equal(again[name], value) for name, value in weights.items())


def test_ids_and_targets_come_as_arrays_tensors_or_lists():
    model, ids = tiny(), tokens(2, 6)
    expected = model(ids[:, :-1], targets=ids[:, 1:])
    for convert in (np.ndarray.tolist, minilm.tensor, lambda a: a.astype(np.uint16), lambda a: a.astype(np.int32)):
        out = model(convert(ids[:, :-1]), targets=convert(ids[:, 1:]))
        np.testing.assert_array_equal(out.logits.data, expected.logits.data)
        assert out.loss.item() == expected.loss.item()
    assert out.logits.dtype == out.loss.dtype == np.float32
    assert model(ids).loss is None


def test_targets_of_minus_100_do_not_count():
    model, ids = tiny(), tokens(2, 6)
    targets = tokens(2, 6, seed=1)
    targets[0, :4] = -100
    logits = model(ids).logits.data.astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = [logp[b, t, targets[b, t]] for b in range(2) for t in range(6) if targets[b, t] != -100]
    assert model(ids, targets=targets).loss.item() == pytest.approx(-np.mean(chosen), rel=1e-5)


def test_logits_to_keep_are_the_last_ones():
    model, ids = tiny(), tokens(2, 6)
    np.testing.assert_allclose(model(ids, logits_to_keep=2).logits.data, model(ids).logits.data[:, -2:], atol=1e-6)


def test_tokens_one_by_one_through_the_cache_equal_all_at_once():
    model, ids = tiny(), tokens(2, 9)
    mask = np.array([[1] * 9, [0] * 4 + [1] * 5])
    with minilm.no_grad():
        for given in (None, mask):
            expected = model(ids, attention_mask=given).logits.data
            cache, pieces, start = model.new_cache(), [], 0
            for stop in (4, 5, 7, 9):
                seen = None if given is None else given[:, :stop]
                pieces.append(model(ids[:, start:stop], attention_mask=seen, cache=cache).logits.data)
                start = stop
            found = np.concatenate(pieces, axis=1)
            real = np.ones_like(mask, bool) if given is None else mask == 1
            np.testing.assert_allclose(found[real], expected[real], atol=1e-5)
    with pytest.raises(RuntimeError, match="no_grad"):
        model(ids, cache=model.new_cache())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(tokens(5)), ValueError, r"\(B, T\).*ids\[None\]"),
        (lambda m: m(np.zeros((2, 0), np.int64)), ValueError, "at least one token"),
        (lambda m: m(tokens(1, 17)), ValueError, "17 tokens are more than the model's max_length, 16"),
        (lambda m: m(np.array([[61]])), IndexError, "61"),
        (lambda m: m(np.array([[-1]])), IndexError, "-1"),
        (lambda m: m(np.zeros((1, 3))), TypeError, "integer"),
        (lambda m: m(tokens(2, 4), targets=tokens(2, 3)), ValueError, r"\(2, 4\), got \(2, 3\)"),
        (lambda m: m(tokens(1, 2), targets=np.array([[0, 61]])), ValueError, "61"),
        (lambda m: m(tokens(2, 4), attention_mask=np.ones((2, 5))), ValueError, r"attention_mask must be \(2, 4\)"),
        (lambda m: m(tokens(2, 4), attention_mask=np.ones((1, 4))), ValueError, r"attention_mask must be \(2, 4\)"),
        (lambda m: m(tokens(2, 4), logits_to_keep=-1), ValueError, "logits_to_keep"),
    ],
)  # fmt: skip
def test_bad_arguments_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call(tiny())


# Gradients.


def test_the_gradient_of_tied_embeddings_is_the_sum_of_both_uses():
    tied = tiny()
    apart = tiny(tie_word_embeddings=False)
    apart.load_state_dict({**tied.state_dict(), "lm_head.weight": tied.transformer.wte.weight.data})
    ids = tokens(2, 8)
    for model in (tied, apart):
        model(ids[:, :-1], targets=ids[:, 1:]).loss.backward()
    both = apart.transformer.wte.weight.grad.data + apart.lm_head.weight.grad.data
    np.testing.assert_allclose(tied.transformer.wte.weight.grad.data, both, rtol=1e-4, atol=1e-7)
    assert tied.n_parameters == apart.n_parameters - 61 * 24


SMALL = {"vocab_size": 5, "n_positions": 4, "n_embd": 4, "n_head": 2, "n_layer": 2, "n_inner": 6}
CHECKED = ("wte", "wpe", "h.0.ln_1.weight", "h.0.attn.c_attn.weight", "h.1.attn.c_attn.bias", "h.1.mlp.c_proj.weight")


@pytest.mark.parametrize("mask", [None, [[1, 1, 1], [0, 1, 1]], [[1, 1, 1], [1, 1, 0]]], ids=["whole", "left", "right"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "dropout"])
def test_gradients_of_the_whole_model_are_exact(mask, training):
    model = tiny(**SMALL).to("float64").train(training)
    ids, targets = tokens(2, 3) % 5, np.array([[1, 2, -100], [0, 4, 3]])
    names = [n for n, _ in model.named_parameters() if any(n.endswith((c, f"{c}.weight")) for c in CHECKED)]
    assert len(names) == len(CHECKED)
    owners = dict(model.named_modules())

    def loss(*values):
        minilm.manual_seed(3)  # dropout draws the same numbers at each call
        for name, value in zip(names, values):
            module, _, own = name.rpartition(".")
            setattr(owners[module], own, value)
        return model(ids, targets=targets, attention_mask=None if mask is None else np.array(mask)).loss

    inputs = [minilm.tensor(p.data, requires_grad=True) for n, p in model.named_parameters() if n in names]
    assert gradcheck(loss, inputs)


def test_dropout_is_off_in_eval_and_right_in_expectation():
    model, ids = tiny(attn_pdrop=0.4, embd_pdrop=0.0, resid_pdrop=0.0), tokens(1, 6)
    first, again = model(ids).logits.data, model(ids).logits.data
    np.testing.assert_array_equal(first, again)
    # The output of one attention layer is linear in its dropped weights: its mean is the output without dropout.
    attention = model.transformer.h[0].attn
    x = minilm.tensor(np.random.default_rng(0).standard_normal((1, 6, 24)).astype(np.float32))
    with minilm.no_grad():
        plain = attention(x, {}, None).data
        attention.train()
        minilm.manual_seed(0)
        draws = np.stack([attention(x, {}, None).data for _ in range(1500)])
    assert draws.std(axis=0).min() > 0
    error = np.abs(draws.mean(axis=0) - plain) / (draws.std(axis=0) / np.sqrt(len(draws)))
    assert error.max() < 5
    minilm.manual_seed(1)
    model.train()
    one = model(ids).logits.data
    assert not np.array_equal(one, model(ids).logits.data)
    minilm.manual_seed(1)
    np.testing.assert_array_equal(one, model(ids).logits.data)  # the stream decides, and nothing else


# As a module.


def test_hooks_deep_copies_and_repr():
    model, ids = tiny(), tokens(1, 5)
    seen = []
    remove = model.transformer.h[1].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    expected = model(ids).logits.data
    remove()
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(twin(ids).logits.data, expected)
    twin.transformer.wte.weight.data += 1
    np.testing.assert_array_equal(model(ids).logits.data, expected)
    assert seen == [(1, 5, 24)]
    assert "(c_attn): Conv1D(24, 72)" in repr(model)
    assert isinstance(twin.transformer.wte.weight, nn.Parameter)


def test_float64_stays_float64_and_agrees():
    model, ids = tiny(), tokens(2, 7)
    twin = copy.deepcopy(model).to("float64")
    out = twin(ids, targets=ids)
    assert out.logits.dtype == out.loss.dtype == np.float64
    np.testing.assert_allclose(model(ids).logits.data, out.logits.data, atol=2e-5)


def test_torchs_tokens_are_taken_too(torch):
    model, ids = tiny(), np.array([[1, 2, 3]])
    np.testing.assert_array_equal(model(torch.from_numpy(ids)).logits.data, model(ids).logits.data)
