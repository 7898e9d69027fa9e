"""GPT-2's files and config: those that are written, old ones and misfits that are read, what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from tiny_gpt2 import TINY, tiny, tokens

import minilm
from minilm.checkpoint import load_weights, save_weights
from minilm.models import GPT2, CausalLM, GPT2Config

# Files.


def test_old_files_with_mask_buffers_and_half_precision_load(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    names = {name.removeprefix("transformer."): value for name, value in model.state_dict().items()}
    for layer in range(TINY["n_layer"]):
        names[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.uint8))
        names[f"h.{layer}.attn.masked_bias"] = np.float32(-1e4)
    save_weights(tmp_path / "model.safetensors", names)
    np.testing.assert_array_equal(
        GPT2.from_pretrained(tmp_path)(tokens(1, 4)).logits.data, model(tokens(1, 4)).logits.data
    )
    for dtype in ("float16", "bfloat16"):
        dtype = minilm.backend.resolve_dtype(dtype)
        save_weights(tmp_path / "model.safetensors", {n: v.astype(dtype) for n, v in model.state_dict().items()})
        loaded = GPT2.from_pretrained(tmp_path)
        for name, value in model.state_dict().items():
            found = loaded.state_dict()[name]
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, value.astype(dtype).astype(np.float32))


def test_a_copy_of_the_tied_head_is_fine_and_a_different_head_is_not(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    weights = model.state_dict()
    table = weights["transformer.wte.weight"]
    save_weights(tmp_path / "model.safetensors", {**weights, "lm_head.weight": table})
    np.testing.assert_array_equal(GPT2.from_pretrained(tmp_path).transformer.wte.weight.data, table)
    del weights["transformer.wte.weight"]
    save_weights(tmp_path / "model.safetensors", {**weights, "lm_head.weight": table})
    np.testing.assert_array_equal(GPT2.from_pretrained(tmp_path).transformer.wte.weight.data, table)
    save_weights(tmp_path / "model.safetensors", {**model.state_dict(), "lm_head.weight": table + 1})
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        GPT2.from_pretrained(tmp_path)


def test_loading_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config.json"):
        GPT2.from_pretrained(tmp_path)
    model = tiny()
    model.save_pretrained(tmp_path)
    weights = model.state_dict()
    missing = {name: value for name, value in weights.items() if name != "transformer.h.1.ln_2.bias"}
    save_weights(tmp_path / "model.safetensors", {**missing, "score.weight": np.zeros(2, np.float32)})
    with pytest.raises(KeyError, match=r"Missing: transformer.h.1.ln_2.bias. Unexpected: score.weight"):
        GPT2.from_pretrained(tmp_path)
    save_weights(tmp_path / "model.safetensors", {**weights, "transformer.ln_f.bias": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"transformer.ln_f.bias is \(3,\), expected \(24,\)"):
        GPT2.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors"):
        GPT2.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="no intact JSON"):
        GPT2.from_pretrained(tmp_path)


def test_the_files_that_are_written(tmp_path):
    model = tiny(eos_token_id=5).to("bfloat16")
    model.save_pretrained(tmp_path / "deep" / "folder")
    folder = tmp_path / "deep" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors",
    ]  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert (config["model_type"], config["dtype"]) == ("gpt2", "bfloat16")
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": 5}
    assert GPT2Config.from_dict(config) == model.config
    assert load_weights(folder / "model.safetensors")["transformer.wte.weight"].dtype.name == "bfloat16"


def test_tokens_of_generation_config_come_before_the_configs(tmp_path):
    model = tiny(eos_token_id=5)
    model.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [7, 9], "bos_token_id": None, "temperature": 0.6, "do_sample": True}))
    config = GPT2.from_pretrained(tmp_path).config
    assert (config.eos_token_id, config.bos_token_id) == ([7, 9], None)
    path.unlink()
    assert GPT2.from_pretrained(tmp_path).config.eos_token_id == 5
    for text, message in (
        ("{", "no intact JSON"),
        ("[]", "no JSON object"),
        ('{"eos_token_id": "a"}', "'a'; expected"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"generation_config.json.*{message}"):
            GPT2.from_pretrained(tmp_path)


def test_the_padding_token_of_a_file_is_kept_and_fills_what_has_ended(tmp_path):
    tiny(1).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"pad_token_id": 7}))
    model = GPT2.from_pretrained(tmp_path)
    ids = tokens(2, 4)
    first, other = model.generate(ids, 1)[:, 4]
    assert first != other
    assert model.generate(ids, 3, eos_token_id=int(first))[0, 4:].tolist() == [first, 7, 7]
    model.save_pretrained(tmp_path / "again")
    assert GPT2.from_pretrained(tmp_path / "again").config.pad_token_id == 7


# The config.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"add_cross_attention": True}, "add_cross_attention = True, which GPT2Config does not support"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "gpt_neo"}, "'gpt_neo'"),
        ({"activation_function": "gelu_fast"}, "no activation is named 'gelu_fast'"),
        ({"n_head": 5}, "multiple of n_head"),
        ({"n_layer": 0}, "n_layer must be at least 1"),
        ({"attn_pdrop": 1.5}, "attn_pdrop is a probability"),
    ],
)
def test_a_config_that_we_cannot_honour_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GPT2Config.from_dict({**TINY, **changes})


def test_keys_that_change_nothing_are_left_out():
    others = {"add_cross_attention": False, "summary_type": "mean", "use_cache": True}
    assert GPT2Config.from_dict({**TINY, **others}) == GPT2Config(**TINY)
    assert dataclasses.asdict(GPT2Config())["n_embd"] == 768


def test_a_model_that_does_not_say_what_it_is_can_not_be_saved(tmp_path):
    class Nameless(CausalLM):
        pass

    with pytest.raises(TypeError, match="Nameless has no architecture: to be saved"):
        Nameless().save_pretrained(tmp_path / "none")
    assert not (tmp_path / "none").exists()
