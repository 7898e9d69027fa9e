"""`minilm chat`, `convert`, `info MODEL`, `generate` and `check` on models of other families, as a user runs them."""

import io
import json

import numpy as np
import pytest

import minilm
from minilm.cli.main import main
from minilm.models import Bert, BertConfig, Llama, LlamaConfig, load
from minilm.tokenization import Tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def llama(vocab_size):
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, eos_token_id=256,
    )  # fmt: skip
    return Llama(config, minilm.backend.Generator(0))


@pytest.fixture
def folder(tmp_path):
    """A small Llama that writes bytes, with a chat template."""
    path = tmp_path / "model"
    llama(257).save_pretrained(path)
    Tokenizer.byte(["<|end|>"]).save(path)
    settings = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def say(monkeypatch, capsys, folder, lines, *options):
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    code = main(["chat", str(folder), "--max-new-tokens", "6", *options])
    return code, capsys.readouterr()


def test_a_conversation_is_what_the_model_makes_of_the_template(folder, monkeypatch, capsys):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    model, tokenizer = load(folder), Tokenizer.from_pretrained(folder)

    def answer(*turns):
        text = "".join(f"<{role}>{content}\n" for role, content in turns) + "<a>"
        ids = tokenizer.encode(text)
        return tokenizer.decode(model.generate(ids[None], 6)[0, len(ids) :], skip_special_tokens=True)

    first = answer(("system", "be brief"), ("user", "hello"))
    second = answer(("system", "be brief"), ("user", "hello"), ("assistant", first.strip()), ("user", "again"))
    code, printed = say(
        monkeypatch, capsys, folder, "hello\nagain\n/nothing\n/reset\nhello\n", "--system", "be brief", "--greedy",
        "--repetition-penalty", "1",
    )  # fmt: skip
    assert code == 0
    assert printed.out.startswith(f"{first}\n{second}\n")
    assert "there is no command /nothing" in printed.out
    assert printed.out.endswith(f"(forgotten)\n{first}\n")


def test_a_conversation_that_grows_too_long_loses_its_beginning(folder, monkeypatch, capsys):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    code, printed = say(monkeypatch, capsys, folder, "some words\n" * 12 + "/quit\nnever read\n")
    assert code == 0
    assert printed.out.count("\n") >= 12
    code, printed = say(monkeypatch, capsys, folder, "far too long " * 20 + "\n")
    assert code == 1
    assert "are more than the 128 that the model can look at" in printed.err


def test_what_can_not_chat_says_so(folder, monkeypatch, capsys):
    (folder / "tokenizer_config.json").unlink()
    code, printed = say(monkeypatch, capsys, folder, "hello\n")
    assert code == 1
    assert "has no chat template; it continues texts: minilm generate" in printed.err


def test_an_encoder_does_not_write(folder, tmp_path, capsys):
    config = BertConfig(
        vocab_size=257, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32,
    )  # fmt: skip
    Bert(config).save_pretrained(tmp_path / "bert")
    (folder / "tokenizer.json").rename(tmp_path / "bert" / "tokenizer.json")
    assert main(["generate", str(tmp_path / "bert"), "--prompt", "a"]) == 1
    assert "holds a Bert, which does not write text" in capsys.readouterr().err


def test_generate_and_check_take_any_family(folder, capsys):
    assert main(["generate", str(folder), "--prompt", "ab", "--max-new-tokens", "5", "--greedy"]) == 0
    assert capsys.readouterr().out.startswith("ab")
    assert main(["check", str(folder), "--length", "8"]) == 0
    assert "Llama with" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_convert_writes_what_transformers_reads(dtype, folder, tmp_path, capsys, torch):
    transformers = pytest.importorskip("transformers", reason="transformers, the peer, is not installed")
    assert main(["convert", str(folder), str(tmp_path / "out"), "--dtype", dtype]) == 0
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert peer.dtype == getattr(torch, dtype)
    ids = np.array([[1, 2, 3]])
    with torch.no_grad():
        theirs = peer.float()(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(load(tmp_path / "out")(ids).logits.data, theirs, atol=2e-5)
    assert Tokenizer.from_pretrained(tmp_path / "out").chat_templates
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["convert", str(folder), str(tmp_path / "out.gguf")]) == 1
    assert "what is written is a folder; name it out, say" in capsys.readouterr().err


def test_info_says_what_a_model_is(folder, capsys):
    assert main(["info", str(folder)]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if not line.startswith("a "))
    model = load(folder)
    assert said["model"].startswith("Llama (LlamaForCausalLM)")
    assert said["parameters"] == f"{model.n_parameters:,}"
    assert said["shape"].startswith("2 layers, 4 heads, 2 key heads, 32 wide")
    assert said["context"] == "128 tokens"
    assert "minilm chat" in said["chat"]


def test_a_quantised_file_does_all_of_it(tmp_path, monkeypatch, capsys):
    gguf = pytest.importorskip("gguf", reason="the gguf package writes the file of this test")
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    from minilm.tokenization.byte_level import byte_to_character

    model, path = llama(258), tmp_path / "a.gguf"
    writer, config = gguf.GGUFWriter(path, "llama"), model.config
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*byte_to_character(), "<|end|>", "ab"])
    writer.add_token_types([1] * 256 + [3, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)
    writer.add_chat_template(TEMPLATE)
    names = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "q_proj": "attn_q", "k_proj": "attn_k",
        "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up",
        "down_proj": "ffn_down", "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
    }  # fmt: skip
    for name, array in model.state_dict().items():
        layer = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        stem = f"{layer}{names[name.split('.')[-2]]}.weight"
        if array.ndim == 1 or array.shape[1] % 32:
            writer.add_tensor(stem, array)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(stem, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    code, printed = say(monkeypatch, capsys, path, "hello\n", "--greedy")
    assert code == 0, printed.err
    assert main(["info", str(path)]) == 0
    assert "of blocks" in capsys.readouterr().out
    assert main(["generate", str(path), "--prompt", "ab", "--max-new-tokens", "5", "--greedy"]) == 0
    assert main(["check", str(path), "--length", "8"]) == 0
    assert main(["convert", str(path), str(tmp_path / "out")]) == 0
    assert main(["generate", str(tmp_path / "out"), "--prompt", "ab", "--max-new-tokens", "5", "--greedy"]) == 0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing-here", "there is no run folder nothing-here"),
        ("notes.txt", "expected a folder, or a file that ends in .gguf"),
    ],
)
def test_what_is_no_model_is_refused(path, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert main(["info", path]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_name_of_the_hub_without_the_package_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert main(["info", "owner/name"]) == 1
    assert "pip install 'minilm[hub]'" in capsys.readouterr().err
