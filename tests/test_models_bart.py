"""BART, Marian and the original Transformer: transformers' logits, states, loss, gradients and files, and our cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
from encoder_decoder_peer import compare

import minilm
from minilm import models
from minilm.checkpoint import load_weights, save_weights
from minilm.models import BartConfig, BartForConditionalGeneration, MarianConfig, MarianMTModel
from minilm.models.bart import sinusoids
from minilm.models.encoder_decoder import shift_tokens_right
from minilm.optim import AdamW

TINY = {
    "vocab_size": 47, "d_model": 24, "max_position_embeddings": 20, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_ffn_dim": 40, "decoder_ffn_dim": 32, "encoder_attention_heads": 3, "decoder_attention_heads": 2,
    "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
APART = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 53}
CASES = [
    ("bart", {}),
    ("bart", {"scale_embedding": True, "activation_function": "relu", "encoder_layers": 1}),
    ("bart", {"tie_word_embeddings": False, "decoder_layers": 1, "activation_function": "gelu_new"}),
    ("marian", {}),
    ("marian", {"scale_embedding": True, "activation_function": "swish"}),
    ("marian", APART),
    ("marian", {**APART, "tie_word_embeddings": False}),
    ("transformer", {}),
]


def tiny(kind="bart", seed=0, **changes):
    """A small model whose weights are far from their start, biases, norms and the bias of the logits included."""
    changes = {**TINY, **changes}
    if kind == "bart":
        model = BartForConditionalGeneration(BartConfig(**changes))
    elif kind == "marian":
        model = MarianMTModel(MarianConfig(**changes))
    else:
        model = MarianMTModel(MarianConfig.transformer_base(**changes))
    stream = minilm.backend.Generator(seed)
    for name, tensor in [*model.named_parameters(), ("final_logits_bias", model.final_logits_bias)]:
        noise = stream.normal(tensor.shape, std=0.25)
        tensor.data = (1 + noise if "norm" in name and name.endswith("weight") else noise).astype(np.float32)
    return model.eval()


def tokens(*shape, seed=0, low=3) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, TINY["vocab_size"], shape)


def peer_of(model, transformers, folder, dtype="float32", caplog=None):
    """transformers' model from our files; loading must find each name, and no other, and say nothing."""
    model.save_pretrained(folder)
    cls = getattr(transformers, model.architecture)
    peer, info = cls.from_pretrained(folder, output_loading_info=True, attn_implementation="eager", dtype=dtype)
    assert not any(info.values()), info
    assert caplog is None or not caplog.records
    return peer.eval()


def unequal():
    """Texts, their mask, wanted tokens with -100 at the end, the decoder's mask."""
    ids, labels = tokens(3, 9), tokens(3, 7, seed=1)
    mask, decoder_mask = np.ones_like(ids), np.ones_like(labels)
    mask[1, 5:], mask[2, 8:], labels[1, 4:], decoder_mask[1, 5:] = 0, 0, -100, 0
    ids[mask == 0], ids[0, 3] = 1, 1  # padding, and once where the mask says that it is to be seen
    return ids, mask, labels, decoder_mask


# Parity.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "changes"), CASES, ids=lambda case: case if isinstance(case, str) else "-".join(case))
def test_logits_states_attentions_loss_gradients_and_files_are_those_of_transformers(
    kind, changes, dtype, transformers, torch, tmp_path, caplog
):
    model = tiny(kind, **changes).to(dtype)
    peer = peer_of(model, transformers, tmp_path / "ours", getattr(torch, dtype), caplog)
    ids, mask, labels, decoder_mask = unequal()
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels, "decoder_attention_mask": decoder_mask}
    compare(model, peer, torch, given, unused=("model.shared.weight",))  # the shared table of an untied model

    peer.save_pretrained(tmp_path / "theirs")
    back = models.load(tmp_path / "theirs")
    assert type(back) is type(model)
    assert back.config == model.config
    assert not back.training
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], value)


@pytest.mark.parametrize("kind", ["bart", "marian"])
def test_a_fresh_model_of_transformers_loads(kind, transformers, torch, tmp_path):
    names = {"bart": ("Bart", "BartForConditionalGeneration"), "marian": ("Marian", "MarianMTModel")}[kind]
    config = getattr(transformers, f"{names[0]}Config")(**TINY)
    peer = getattr(transformers, names[1])(config).eval()
    peer.save_pretrained(tmp_path)
    model, ids, labels = models.load(tmp_path), tokens(2, 20), tokens(2, 6, seed=1)
    with torch.no_grad():
        expected = peer(torch.from_numpy(ids), labels=torch.from_numpy(labels)).logits.numpy()
    np.testing.assert_allclose(model(ids, labels=labels).logits.data, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["Bart", "Marian"])
def test_the_base_model_of_transformers_loads_too(kind, transformers, torch, tmp_path):
    peer = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**TINY)).eval()
    peer.save_pretrained(tmp_path)
    assert "shared.weight" in load_weights(tmp_path / "model.safetensors")  # names without the prefix, and no head
    cls = BartForConditionalGeneration if kind == "Bart" else MarianMTModel
    model, ids, start = cls.from_pretrained(tmp_path), tokens(2, 6), tokens(2, 4, seed=1)
    with torch.no_grad():
        states = peer(torch.from_numpy(ids), decoder_input_ids=torch.from_numpy(start)).last_hidden_state.numpy()
    out = model(ids, decoder_input_ids=start, output_hidden_states=True)
    np.testing.assert_allclose(out.decoder_hidden_states[-1].data, states, atol=2e-5)
    assert not model.final_logits_bias.data.any()


def test_the_original_transformer_learns_to_reverse_as_torch_does(transformers, torch, tmp_path):
    sizes = {**TINY, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "decoder_attention_heads": 4}
    config = MarianConfig.transformer_base(**{**sizes, "encoder_attention_heads": 4, "dropout": 0.0})
    model = MarianMTModel(config, minilm.backend.Generator(0))
    peer = peer_of(model, transformers, tmp_path).train()
    settings = {"lr": 5e-3, "betas": (0.9, 0.98), "eps": 1e-9, "weight_decay": 0.0}
    optimizer, other = AdamW(list(model.parameters()), **settings), torch.optim.AdamW(peer.parameters(), **settings)
    ours, theirs = [], []
    for step in range(150):
        ids = tokens(32, 5, seed=step) % 9 + 3
        labels = np.concatenate([ids[:, ::-1], np.full((32, 1), 2)], axis=1)
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ours.append(loss.item())
        if step < 40:  # rounding errors grow
            loss = peer(torch.from_numpy(ids), labels=torch.from_numpy(labels)).loss
            loss.backward()
            other.step()
            other.zero_grad()
            theirs.append(loss.item())
    np.testing.assert_allclose(ours[:40], theirs, rtol=1e-3)
    assert ours[-1] < 0.2 * ours[0]
    ids = tokens(8, 5, seed=1000) % 9 + 3
    written = model.generate(ids, 8, num_beams=2)
    assert (written[:, 1:6] == ids[:, ::-1]).mean() > 0.9


def test_bart_restores_its_input_where_nothing_else_is_given(transformers, torch, tmp_path):
    model, ids = tiny(), tokens(2, 6)
    peer = peer_of(model, transformers, tmp_path)
    np.testing.assert_allclose(model(ids).logits.data, peer(torch.from_numpy(ids)).logits.detach(), atol=2e-5)


def test_the_table_of_sines_is_transformers(transformers):
    for width in (6, 7):
        table = transformers.models.marian.modeling_marian.MarianSinusoidalPositionalEmbedding(50, width)
        np.testing.assert_allclose(sinusoids(50, width), table.create_weight(), atol=1e-6)


def test_dropout_is_in_its_three_places_and_off_in_eval():
    rates = {"dropout": 0.1, "attention_dropout": 0.2, "activation_dropout": 0.3}
    model, ids, labels = tiny(**rates), tokens(2, 6), tokens(2, 5, seed=1)
    plain = model(ids, labels=labels).logits.data
    np.testing.assert_array_equal(model(ids, labels=labels).logits.data, plain)
    model.train()
    minilm.manual_seed(1)
    one = model(ids, labels=labels).logits.data
    assert not np.array_equal(one, model(ids, labels=labels).logits.data)
    minilm.manual_seed(1)
    np.testing.assert_array_equal(one, model(ids, labels=labels).logits.data)
    for name in rates:  # each is in its place: alone it changes what comes out
        one = tiny(**dict.fromkeys(rates, 0.0) | {name: 0.5}).train()
        assert not np.allclose(one(ids, labels=labels).logits.data, plain, atol=1e-3), name


# Files.


@pytest.mark.parametrize("kind", ["bart", "marian"])
def test_old_files_with_copies_of_the_table_and_versions_load(kind, tmp_path):
    model = tiny(kind)
    model.save_pretrained(tmp_path)
    weights, ids = model.state_dict(), tokens(2, 5)
    table = weights.pop("model.shared.weight")
    copies = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    old = {**weights, **dict.fromkeys(copies, table), "model.encoder.version": np.zeros(1, np.float32)}
    if kind == "marian":
        old["model.encoder.embed_positions.weight"] = sinusoids(20, 24)
    expected = model(ids, decoder_input_ids=ids).logits.data
    save_weights(tmp_path / "model.safetensors", old)
    np.testing.assert_array_equal(models.load(tmp_path)(ids, decoder_input_ids=ids).logits.data, expected)
    save_weights(tmp_path / "model.safetensors", {**old, "lm_head.weight": table + 1})
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        models.load(tmp_path)
    if kind == "marian":
        save_weights(tmp_path / "model.safetensors", {**old, "model.encoder.embed_positions.weight": table[:20] + 1})
        with pytest.raises(ValueError, match="is not the table of sines"):
            models.load(tmp_path)


def test_the_files_that_are_written(tmp_path):
    tiny("marian", forced_eos_token_id=2, forced_bos_token_id=5).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["MarianMTModel"], "marian")
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2,
        "forced_bos_token_id": 5, "forced_eos_token_id": 2,
    }  # fmt: skip
    names = load_weights(tmp_path / "model.safetensors")
    assert {"model.shared.weight", "final_logits_bias"} <= set(names)
    assert not any("embed_positions" in name or "embed_tokens" in name or "lm_head" in name for name in names)


# The config.


def test_the_original_transformer_has_its_shape():
    config = MarianConfig.transformer_base()
    sizes = (config.d_model, config.encoder_ffn_dim, config.encoder_layers, config.decoder_layers)
    assert sizes == (512, 2048, 6, 6)
    assert (config.encoder_attention_heads, config.activation_function, config.dropout) == (8, "relu", 0.1)
    with minilm.nn.init.left_out():
        assert MarianMTModel(config).n_parameters == 63_082_496  # the paper's 65M are with a bias in the output


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (BartConfig, {"normalize_before": True}, "normalize_before = True, which BartConfig does not support"),
        (BartConfig, {"encoder_layerdrop": 0.1}, "encoder_layerdrop"),
        (BartConfig, {"model_type": "marian"}, "'marian'"),
        (BartConfig, {"activation_function": "gelu_fast"}, "no activation is named 'gelu_fast'"),
        (BartConfig, {"decoder_attention_heads": 5}, "multiple of decoder_attention_heads"),
        (BartConfig, {"decoder_layers": 0}, "decoder_layers must be at least 1"),
        (BartConfig, {"dropout": 1.5}, "dropout is a probability"),
        (BartConfig, {"pad_token_id": 47}, "pad_token_id"),
        (MarianConfig, {"decoder_vocab_size": 53}, "share_encoder_decoder_embeddings"),
    ],
)
def test_a_config_that_we_cannot_honour_is_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config.from_dict({**TINY, **changes})


# forward.


def test_the_encoder_runs_once_for_several_calls_and_its_keys_are_made_once():
    model, (ids, mask, labels, _) = tiny("marian"), unequal()
    start = shift_tokens_right(labels, 1, 2)
    expected = model(ids, mask, start).logits.data
    encoded = model.encode(ids, mask)
    for outputs in (encoded, (encoded.last_hidden_state,)):
        found = model(attention_mask=mask, decoder_input_ids=start, encoder_outputs=outputs).logits.data
        np.testing.assert_array_equal(found, expected)
    calls = []
    model.encoder.register_forward_hook(lambda *args: calls.append("encoder"))
    model.decoder.layers[1].encoder_attn.k_proj.register_forward_hook(lambda *args: calls.append("keys"))
    with minilm.no_grad():
        cache, pieces = model.new_cache(), []
        for first, last in ((0, 3), (3, 4), (4, 7)):
            inputs = {"input_ids": ids} if first == 0 else {}
            out = model(**inputs, attention_mask=mask, decoder_input_ids=start[:, first:last], cache=cache)
            pieces.append(out.logits.data)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=1e-5)
    assert calls == ["encoder", "keys"]
    with pytest.raises(ValueError, match="the cache holds what the encoder said"):
        model(ids, decoder_input_ids=start[:, :1], cache=cache)
    with pytest.raises(RuntimeError, match="no_grad"):
        model(ids, decoder_input_ids=start, cache=model.new_cache())


def test_a_cache_whose_rows_are_moved_is_that_of_the_moved_texts():
    model, ids, start = tiny(), tokens(3, 6), tokens(3, 5, seed=1)
    with minilm.no_grad():
        cache = model.new_cache()
        model(ids, decoder_input_ids=start[:, :4], cache=cache)
        for rows in ([0, 0, 1, 1, 2, 2], [1, 0, 3, 2, 4, 4], [5, 2]):
            rows = np.array(rows)
            ids, start = ids[rows], start[rows]
            cache.select(rows)
            cache_now = cache.memory(0, None)[0].data
            assert len(cache_now) == len(rows)
        found = model(decoder_input_ids=start[:, 4:], cache=cache).logits.data
        np.testing.assert_allclose(found, model(ids, decoder_input_ids=start).logits.data[:, 4:], atol=1e-5)


def test_labels_are_shifted_and_targets_are_not():
    model, (ids, mask, labels, _) = tiny("marian"), unequal()
    start = shift_tokens_right(labels, 1, 2)
    np.testing.assert_array_equal(start[1], [2, *labels[1, :4], 1, 1])
    expected = model(ids, mask, labels=labels)
    found = model(ids, mask, start, targets=labels)
    assert found.loss.item() == expected.loss.item()
    np.testing.assert_array_equal(found.logits.data, expected.logits.data)
    kept = model(ids, mask, start, logits_to_keep=2).logits.data
    np.testing.assert_allclose(kept, found.logits.data[:, -2:], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(tokens(5), decoder_input_ids=tokens(1, 2)), ValueError, r"input_ids must be \(B, T\).*ids\[None"),
        (lambda m: m(tokens(1, 5), decoder_input_ids=tokens(2)), ValueError, r"decoder_input_ids must be \(B, T\)"),
        (lambda m: m(tokens(1, 5)), ValueError, "give decoder_input_ids, or labels"),
        (lambda m: m(decoder_input_ids=tokens(1, 2)), ValueError, "give input_ids or"),
        (lambda m: m(tokens(1, 5), encoder_outputs=(0,), labels=tokens(1, 2)), ValueError, "one of the two"),
        (lambda m: m(tokens(2, 5), decoder_input_ids=tokens(3, 2)), ValueError, "read 2 texts, and the decoder has 3"),
        (lambda m: m(tokens(1, 21), labels=tokens(1, 2)), ValueError, "21 tokens are more than .* 20"),
        (lambda m: m(tokens(1, 2), labels=tokens(1, 21)), ValueError, "21 tokens are more than .* 20"),
        (lambda m: m(tokens(1, 2), labels=tokens(1, 2), targets=tokens(1, 2)), ValueError, "one of them"),
        (lambda m: m(np.array([[47]]), labels=tokens(1, 2)), IndexError, "47"),
        (lambda m: m(tokens(2, 4), np.ones((2, 5)), tokens(2, 2)), ValueError, r"attention_mask must be \(2, 4\)"),
        (lambda m: m(tokens(1, 4), labels=tokens(1, 2), logits_to_keep=-1), ValueError, "logits_to_keep"),
        (lambda m: shift_tokens_right(tokens(1, 2), None, 2), ValueError, "pad_token_id"),
    ],
)  # fmt: skip
def test_bad_arguments_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call(tiny("marian"))
