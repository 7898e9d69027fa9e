"""T5: transformers' logits, states, loss, gradients, files and sequences, and our cache."""

from __future__ import annotations

import numpy as np
import pytest
from encoder_decoder_peer import compare

import minilm
from minilm import models
from minilm.checkpoint import load_weights, save_weights
from minilm.models import T5Config, T5ForConditionalGeneration
from minilm.models.t5 import relative_position_buckets

TINY = {
    "vocab_size": 47, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 3,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 9, "decoder_start_token_id": 0,
}  # fmt: skip
CASES = [
    {},
    {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    {"feed_forward_proj": "gated-silu", "num_decoder_layers": 1, "relative_attention_max_distance": 5},
    {"feed_forward_proj": "gelu", "num_layers": 1, "num_decoder_layers": 2, "layer_norm_epsilon": 1e-3},
    {"tie_word_embeddings": False, "scale_decoder_outputs": True},
]


def tiny(std=0.2, **changes) -> T5ForConditionalGeneration:
    """A small model whose weights are far from their start, norms and position biases included."""
    model = T5ForConditionalGeneration(T5Config(**{**TINY, **changes}))
    stream = minilm.backend.Generator(0)
    for name, parameter in model.named_parameters():
        noise = stream.normal(parameter.shape, std=1.0 if "relative" in name else std)
        parameter.data = (1 + noise if "norm" in name else noise).astype(np.float32)
    return model.eval()


def tokens(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, TINY["vocab_size"], shape)


def peer_of(model, transformers, folder, dtype="float32", caplog=None):
    """transformers' model from our files; loading must find each name, and no other.

    It says nothing of tied models; of one with its own output layer it complains, about its own files as well.
    """
    model.save_pretrained(folder)
    cls = transformers.T5ForConditionalGeneration
    peer, info = cls.from_pretrained(folder, output_loading_info=True, attn_implementation="eager", dtype=dtype)
    assert not any(info.values()), info
    if dtype != "float32":  # theirs sums squares in float32, whatever the model's dtype
        kind = transformers.models.t5.modeling_t5.T5LayerNorm
        for norm in (module for module in peer.modules() if isinstance(module, kind)):
            norm.forward = lambda x, norm=norm: (
                norm.weight * x / (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
            )
    assert caplog is None or not caplog.records or not model.config.tie_word_embeddings
    return peer.eval()


def unequal(side="right"):
    """Texts, their mask, wanted tokens with -100 at the end, the decoder's mask."""
    ids, labels = tokens(3, 12), tokens(3, 9, seed=1)
    mask, decoder_mask = np.ones_like(ids), np.ones_like(labels)
    mask[1, slice(7, 12) if side == "right" else slice(0, 5)], labels[1, 4:], decoder_mask[1, 5:] = 0, -100, 0
    return ids, mask, labels, decoder_mask


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("changes", CASES, ids=lambda changes: "-".join(changes) or "plain")
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_states_attentions_loss_gradients_and_files_are_those_of_transformers(
    changes, dtype, side, transformers, torch, tmp_path, caplog
):
    model = tiny(**changes).to(dtype)
    peer = peer_of(model, transformers, tmp_path / "ours", getattr(torch, dtype), caplog)
    assert peer.config.scale_decoder_outputs == model.config.scale_decoder_outputs
    ids, mask, labels, decoder_mask = unequal(side)
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels, "decoder_attention_mask": decoder_mask}
    compare(model, peer, torch, given)

    peer.save_pretrained(tmp_path / "theirs")
    back = models.load(tmp_path / "theirs")
    assert type(back) is T5ForConditionalGeneration
    assert back.config == model.config
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], value)


def test_a_fresh_model_of_transformers_loads(transformers, torch, tmp_path):
    for changes in ({}, {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}):
        peer = transformers.T5ForConditionalGeneration(transformers.T5Config(**TINY, **changes)).eval()
        peer.save_pretrained(tmp_path)
        model, ids, labels = models.load(tmp_path), tokens(2, 20), tokens(2, 6, seed=1)
        with torch.no_grad():
            expected = peer(torch.from_numpy(ids), labels=torch.from_numpy(labels)).logits.numpy()
        np.testing.assert_allclose(model(ids, labels=labels).logits.data, expected, atol=2e-5)


@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (8, 9), (16, 20), (5, 7), (64, 512)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_the_buckets_are_transformers(both_ways, n_buckets, max_distance, transformers, torch):
    bucket = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    distance = np.arange(-3000, 3000)
    expected = bucket(torch.from_numpy(distance), both_ways, n_buckets, max_distance).numpy()
    found = relative_position_buckets(distance, both_ways, n_buckets, max_distance)
    np.testing.assert_array_equal(found, expected)
    assert found.min() == 0
    assert found.max() == n_buckets - 1 - (both_ways and n_buckets % 2)


@pytest.mark.parametrize("changes", CASES[:2], ids=lambda changes: "-".join(changes) or "plain")
@pytest.mark.parametrize("num_beams", [1, 3])
def test_sequences_are_those_of_transformers(changes, num_beams, transformers, torch, tmp_path):
    model = tiny(std=0.3, **changes)  # so that its likeliest tokens vary
    peer = peer_of(model, transformers, tmp_path)
    ids, mask, _, _ = unequal()
    plain = model.generate(ids, 20, attention_mask=mask, eos_token_id=[])
    assert len(np.unique(plain)) > 3
    options = {"max_new_tokens": 20, "num_beams": num_beams, "eos_token_id": int(plain[0, 9]), "pad_token_id": 2}
    ours = model.generate(ids, attention_mask=mask, **options)
    theirs = peer.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), do_sample=False, **options)
    np.testing.assert_array_equal(ours, theirs.numpy())
    np.testing.assert_array_equal(ours, model.generate(ids, attention_mask=mask, use_cache=False, **options))


def test_files_in_the_wild(tmp_path):
    model, ids = tiny(), tokens(2, 5)
    model.save_pretrained(tmp_path)
    weights, expected = model.state_dict(), model(ids, labels=ids).logits.data
    table = weights["shared.weight"]
    copies = dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), table)
    unused = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": np.zeros((8, 3), np.float32)}
    save_weights(tmp_path / "model.safetensors", {**weights, **copies, **unused})
    back = models.load(tmp_path)
    np.testing.assert_array_equal(back(ids, labels=ids).logits.data, expected)
    assert back.n_parameters == model.n_parameters
    save_weights(tmp_path / "model.safetensors", {**weights, "encoder.embed_tokens.weight": table + 1})
    with pytest.raises(ValueError, match="one table"):
        models.load(tmp_path)
    save_weights(tmp_path / "model.safetensors", {n: x for n, x in weights.items() if "shared" not in n})
    with pytest.raises(KeyError, match=r"Missing: shared.weight"):
        models.load(tmp_path)


def test_what_is_written_says_that_the_output_layer_is_its_own(tmp_path):
    model = tiny(tie_word_embeddings=False)
    assert not model.config.scale_decoder_outputs
    model.save_pretrained(tmp_path)
    assert {"shared.weight", "lm_head.weight"} <= set(load_weights(tmp_path / "model.safetensors"))
    back = models.load(tmp_path)
    assert back.config == model.config
    np.testing.assert_array_equal(back.lm_head.weight.data, model.lm_head.weight.data)


def test_weights_begin_as_transformers(transformers):
    changes = {**TINY, "d_model": 96, "vocab_size": 300, "d_ff": 200, "feed_forward_proj": "gated-gelu"}
    peer = transformers.T5ForConditionalGeneration(transformers.T5Config(**changes))
    ours = T5ForConditionalGeneration(T5Config(**changes), minilm.backend.Generator(0)).state_dict()
    for name, value in peer.named_parameters():
        if value.numel() > 500 or "norm" in name:
            assert ours[name].std() == pytest.approx(value.std().item(), rel=0.15), name


def test_steps_through_the_cache_equal_all_at_once_and_dropout_is_off_in_eval():
    model, ids, start = tiny(), tokens(2, 6), tokens(2, 12, seed=1)
    expected = model(ids, decoder_input_ids=start).logits.data
    with minilm.no_grad():
        cache, pieces = model.new_cache(), []
        for first, last in ((0, 3), (3, 4), (4, 12)):
            out = model(ids if not first else None, decoder_input_ids=start[:, first:last], cache=cache)
            pieces.append(out.logits.data)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=2e-5)
    assert not np.allclose(model.train()(ids, decoder_input_ids=start).logits.data, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feed_forward_proj": "gated-gelu_fast"}, "no activation is named 'gelu_fast'"),
        ({"relative_attention_num_buckets": 3}, "at least 4"),
        ({"relative_attention_max_distance": 4}, "more than half"),
        ({"num_decoder_layers": 0}, "num_decoder_layers must be at least 1"),
        ({"dropout_rate": -1}, "dropout_rate is a probability"),
        ({"model_type": "mt5"}, "'mt5'"),
        ({"dense_act_fn": "silu"}, "dense_act_fn = 'silu', and feed_forward_proj = .*, for which it is 'relu'"),
        ({"is_gated_act": True}, "is_gated_act = True"),
    ],
)
def test_a_config_that_we_cannot_honour_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        T5Config.from_dict({**TINY, **changes})
