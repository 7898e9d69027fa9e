"""Llama, Mistral and Qwen2: the same logits, states, gradients and files as transformers', rotary scaling included."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minilm
from minilm.checkpoint import save_weights
from minilm.models import Llama, LlamaConfig, Mistral, MistralConfig, Qwen2, Qwen2Config, load
from minilm.models.rope import read_rope, rope_frequencies

TINY = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}

CASES = {
    "llama": (Llama, {}),
    "llama, tied, biases": (Llama, {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama, all heads, wide": (Llama, {"num_key_value_heads": 4, "head_dim": 10, "rms_norm_eps": 1e-3}),
    "llama, gelu": (Llama, {"hidden_act": "gelu", "num_key_value_heads": 1}),
    "llama, linear": (Llama, {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}}),
    "llama, dynamic": (Llama, {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}}),
    "llama, llama3": (Llama, {"rope_parameters": LLAMA3}),
    "llama, yarn": (Llama, {"rope_parameters": YARN}),
    "llama, yarn, more": (
        Llama,
        {"rope_parameters": {**YARN, "beta_fast": 4.0, "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 0.5}},
    ),
    "mistral": (Mistral, {"sliding_window": 5}),
    "mistral, no window": (Mistral, {"sliding_window": None}),
    "qwen2": (Qwen2, {}),
    "qwen2, window": (Qwen2, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
}


def tiny(kind=Llama, seed=0, **changes):
    """A small model whose weights are far from their start, biases and norms included."""
    model = kind(kind.config_class(**{**TINY, **changes}))
    stream = minilm.backend.Generator(seed)
    for name, parameter in model.named_parameters():
        noise = stream.normal(parameter.shape, std=0.15)
        parameter.data = (1 + noise if "norm" in name else noise).astype(np.float32)
    return model.eval()


def tokens(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, TINY["vocab_size"], shape)


def peer_of(model, transformers, folder):
    """transformers' model from our files; loading must find each name, and no other."""
    model.save_pretrained(folder)
    peer, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    assert type(peer).__name__ == model.architecture
    return peer.eval()


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-5), ("float64", 5e-6)])
@pytest.mark.parametrize("case", CASES)
def test_files_go_to_transformers_and_back_with_the_same_numbers(case, dtype, atol, transformers, torch, tmp_path):
    kind, changes = CASES[case]
    model = tiny(kind, **changes)
    peer = peer_of(model, transformers, tmp_path / "ours").to(getattr(torch, dtype))
    model.to(dtype)
    assert model.n_parameters == peer.num_parameters()
    ids = tokens(2, 20)
    mask = np.ones((2, 20), np.int64)
    labels = ids.copy()
    if dtype == "float32":  # in float64 what transformers computes for queries that see nothing is NaN, and spreads
        mask[1, :7], labels[1, :8] = 0, -100
    given, seen = torch.from_numpy(ids), torch.from_numpy(mask)
    positions = torch.clamp(seen.cumsum(1) - 1, min=0)
    expected = peer(
        given, attention_mask=seen, position_ids=positions, labels=torch.from_numpy(labels), output_hidden_states=True,
        output_attentions=True,
    )  # fmt: skip
    out = model(ids, attention_mask=mask, labels=labels, output_hidden_states=True, output_attentions=True)
    real = mask.astype(bool)

    def alike(ours, theirs):
        np.testing.assert_allclose(ours.data[real], theirs.detach().numpy()[real], atol=atol, rtol=0)

    alike(out.logits, expected.logits)
    assert len(out.hidden_states) == len(expected.hidden_states) == 4
    assert len(out.attentions) == len(expected.attentions) == 3
    for ours, theirs in zip(out.hidden_states, expected.hidden_states):
        alike(ours, theirs)
    for ours, theirs in zip(out.attentions, expected.attentions):
        ours, theirs = (np.moveaxis(x, 1, 2)[real] for x in (ours.data, theirs.detach().numpy()))
        np.testing.assert_allclose(ours, theirs, atol=atol)
    assert out.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)

    out.loss.backward()
    expected.loss.backward()
    theirs = dict(peer.named_parameters())
    for name, parameter in model.named_parameters():
        gradient = theirs[name].grad.numpy()
        size = np.abs(gradient).max()
        np.testing.assert_allclose(parameter.grad.data, gradient, rtol=0, atol=1e-4 * size, err_msg=name)

    peer.to(torch.float32).save_pretrained(tmp_path / "theirs")
    back = load(tmp_path / "theirs")
    assert type(back) is kind
    assert not back.training
    model.to("float32")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], value)
    np.testing.assert_array_equal(back(ids).logits.data, model(ids).logits.data)


def test_positions_past_the_first_context_turn_the_dynamic_angles(transformers, torch, tmp_path):
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
    config = transformers.LlamaConfig(**{**TINY, "rope_parameters": rope})
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    cos, _ = rotary(torch.zeros(1), torch.arange(50)[None])
    frequencies, factor = rope_frequencies(read_rope({"rope_parameters": rope}, 32), 6, 32, 50)
    ours = factor * np.cos(np.arange(50)[:, None] * frequencies)
    np.testing.assert_allclose(ours, cos[0, :, :3].numpy(), atol=1e-5)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_half_precision_and_sharded_files_load_as_float32(stored, transformers, torch, tmp_path):
    config = transformers.LlamaConfig(**TINY, tie_word_embeddings=True)
    peer = transformers.LlamaForCausalLM(config).to(getattr(torch, stored))
    peer.save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    model = load(tmp_path)
    assert {parameter.dtype.name for parameter in model.parameters()} == {"float32"}
    theirs = peer.to(torch.float32).state_dict()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, theirs[name].numpy())


def test_the_old_spelling_of_rotary_parameters_is_read(tmp_path):
    model = tiny(rope_parameters=LLAMA3)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
    (tmp_path / "config.json").write_text(json.dumps(config))
    back = load(tmp_path)
    assert back.config.rope_parameters == model.config.rope_parameters
    np.testing.assert_array_equal(back(tokens(1, 9)).logits.data, model(tokens(1, 9)).logits.data)


def test_the_old_spelling_beside_the_new_one_is_what_holds_as_in_transformers(transformers, torch, tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    path.write_text(json.dumps(config))
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids, back = tokens(1, 9), load(tmp_path)
    assert back.config.rope_parameters["rope_type"] == "linear"
    np.testing.assert_allclose(back(ids).logits.data, peer(torch.from_numpy(ids)).logits.detach().numpy(), atol=2e-5)
    path.write_text(json.dumps(config | {"partial_rotary_factor": 0.5}))
    with pytest.raises(ValueError, match="partial_rotary_factor is not 1"):
        load(tmp_path)


def test_a_copy_of_the_tied_head_is_fine_and_a_different_head_is_not(tmp_path):
    model = tiny(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    weights = model.state_dict()
    table = weights.pop("model.embed_tokens.weight")
    for others in ({"model.embed_tokens.weight": table}, {}):
        save_weights(tmp_path / "model.safetensors", {**weights, **others, "lm_head.weight": table})
        np.testing.assert_array_equal(load(tmp_path).model.embed_tokens.weight.data, table)
    save_weights(tmp_path / "model.safetensors", {**model.state_dict(), "lm_head.weight": table + 1})
    with pytest.raises(ValueError, match="tie_word_embeddings is true in its config; make that false"):
        load(tmp_path)


@pytest.mark.parametrize("case", ["llama", "mistral", "qwen2, window", "llama, yarn"])
def test_tokens_with_the_cache_are_those_without_it(case):
    kind, changes = CASES[case]
    model = tiny(kind, **changes)
    ids, mask = tokens(3, 8), np.ones((3, 8), np.int64)
    mask[1, :3] = 0
    kept = model.generate(ids, 20, attention_mask=mask)
    np.testing.assert_array_equal(model.generate(ids, 20, attention_mask=mask, use_cache=False), kept)


def test_greedy_tokens_are_transformers(transformers, torch, tmp_path):
    model = tiny(Mistral, sliding_window=6)
    peer = peer_of(model, transformers, tmp_path)
    ids = tokens(2, 5)
    expected = peer.generate(torch.from_numpy(ids), max_new_tokens=20, do_sample=False, eos_token_id=None)
    np.testing.assert_array_equal(model.generate(ids, 20, eos_token_id=[]), expected.numpy())


def test_positions_come_for_each_row_or_once_for_all():
    model, ids = tiny(), tokens(2, 6)
    positions = np.array([3, 4, 5, 9, 1, 0])
    expected = model(ids, position_ids=np.stack([positions, positions])).logits.data
    for given in (positions, positions[None], positions.tolist()):
        np.testing.assert_allclose(model(ids, position_ids=given).logits.data, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"position_ids must be \(6,\) or \(2, 6\); got \(5,\)"):
        model(ids, position_ids=positions[:5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 3}, "num_attention_heads (4) must be a multiple of num_key_value_heads (3)"),
        ({"head_dim": 5}, "head_dim must be even"),
        ({"hidden_size": 22}, "hidden_size (22) must be a multiple of num_attention_heads (4)"),
        ({"hidden_act": "step"}, "no activation is named 'step'"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "the kind 'longrope' are not known"),
        ({"rope_parameters": {"rope_type": "linear"}}, "needs a number 'factor'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "speed": 1}}, "has no parameter 'speed'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError) as raised:
        LlamaConfig(**{**TINY, **changes})
    assert message in str(raised.value)


def test_load_names_what_it_can_not_load(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load(tmp_path / "nothing")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["MambaForCausalLM"], "model_type": "mamba"}))
    with pytest.raises(ValueError, match=r"holds a MambaForCausalLM; there are: .*LlamaForCausalLM.*CLASS\.from_pretr"):
        load(tmp_path)
    tiny().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "other")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(FileNotFoundError, match="a pickle can run any code"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("[]", "is no index of weights"),
        ('{"weight_map": {"a": "../../etc/passwd"}}', "expected one beside it"),
        ('{"weight_map": {"a": "missing.safetensors"}}', "names the file missing.safetensors, which is not there"),
        ('{"weight_map": {"a": "one.safetensors"}}', "says that 'a' is in one.safetensors, and it is not"),
    ],
)
def test_a_damaged_index_is_refused(index, message, tmp_path):
    tiny().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        load(tmp_path)
    assert message in str(raised.value)


def test_configs_keep_what_the_families_differ_in():
    assert MistralConfig(**TINY).window(0) == 4096
    assert Qwen2Config(**TINY).window(2) is None
    assert Qwen2Config(**TINY, use_sliding_window=True, max_window_layers=2).layer_types == [
        "full_attention", "full_attention", "sliding_attention",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="layer_types names each of the 3 layers"):
        Qwen2Config(**TINY, layer_types=["full_attention"])
