"""The options of decoding on the command line, and text that is shown as it becomes certain."""

import io
import json

import numpy as np
import pytest

import minilm
from minilm.cli.decoding import ShownText
from minilm.cli.main import main
from minilm.models import Llama, LlamaConfig, load
from minilm.tokenization import Tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXTS = ["né à la fin", "日本語です。そして、終わり。", "a👩‍👩‍👧b🙂🙂c", "𝄞 and 語語 END no"]


@pytest.fixture
def folder(tmp_path):
    """A small Llama that writes bytes, with a chat template."""
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, eos_token_id=256,
    )  # fmt: skip
    model, path = Llama(config), tmp_path / "model"
    stream = minilm.backend.Generator(0)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data = stream.normal(parameter.shape, std=0.3)
    model.save_pretrained(path)
    Tokenizer.byte(["<|end|>"]).save(path)
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "chat_template": TEMPLATE}))
    return path


class Pieces(io.StringIO):
    """A terminal that remembers what was written at once."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def write(self, text):
        self.pieces.append(text)
        return len(text)


def shown(monkeypatch, tokenizer, ids, stops=()):
    terminal = Pieces()
    monkeypatch.setattr("sys.stdout", terminal)
    text = ShownText(tokenizer, stops)
    for token in ids:
        text([token])
    assert text.finish() == "".join(terminal.pieces)[:-1]
    return terminal.pieces


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_no_half_character_and_nothing_of_a_stop_string_is_shown(kind, monkeypatch):
    tokenizer = Tokenizer.byte()
    if kind == "bpe":
        tokenizer = Tokenizer.train_bpe(" ".join(TEXTS[:2]) * 3, vocab_size=280)
    for text in TEXTS:
        ids = tokenizer.encode(text).tolist()
        pieces = shown(monkeypatch, tokenizer, ids)
        assert "".join(pieces) == text + "\n"
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
        assert len(pieces) > len(text) / 4  # it comes bit by bit
        for stop in ("語で", "👩‍👧b🙂", "END", " fin", text[2:]):
            pieces = shown(monkeypatch, tokenizer, ids, [stop, "never"])
            assert "".join(pieces) == text.split(stop)[0] + "\n"
            so_far = ""
            for piece in pieces:
                assert stop not in so_far
                so_far += piece
    cut = tokenizer.encode("语🙂").tolist()[:-1]
    if kind == "bytes":
        assert shown(monkeypatch, tokenizer, cut)[-2:] == ["\N{REPLACEMENT CHARACTER}", "\n"]


def test_stop_strings_that_overlap_themselves(monkeypatch):
    tokenizer = Tokenizer.byte()
    assert "".join(shown(monkeypatch, tokenizer, b"aaab", ["aab"])) == "a\n"
    assert "".join(shown(monkeypatch, tokenizer, b"ababac!", ["abac", "x"])) == "ab\n"
    assert "".join(shown(monkeypatch, tokenizer, b"aa", ["aab"])) == "aa\n"  # it never came


def test_generate_takes_the_options_of_decoding(folder, capsys):
    def said(*options):
        assert (
            main(["generate", str(folder), "--prompt", "abcabc", "--max-new-tokens", "12", "--ignore-eos", *options])
            == 0
        )
        return capsys.readouterr().out

    greedy = said("--greedy")
    model, tokenizer = load(folder), Tokenizer.from_pretrained(folder)
    ids = tokenizer.encode("abcabc")[None]
    assert greedy == tokenizer.decode(model.generate(ids, 12, eos_token_id=[])[0], skip_special_tokens=True) + "\n"
    for same in (
        ("--prompt-lookup-num-tokens", "3"),
        ("--assistant-model", str(folder), "--num-assistant-tokens", "2"),
        ("--cache-implementation", "static", "--prefill-chunk-size", "2"),
    ):
        assert said("--greedy", *same) == greedy, same
    beams = model.generate(ids, 12, eos_token_id=[], num_beams=3, length_penalty=2.0, no_repeat_ngram_size=2)
    options = ("--num-beams", "3", "--length-penalty", "2", "--no-repeat-ngram-size", "2")
    assert said(*options) == tokenizer.decode(beams[0], skip_special_tokens=True) + "\n"
    assert said("--typical-p", "0.5", "--seed", "1") == said("--typical-p", "0.5", "--seed", "1") != greedy
    assert main(["generate", str(folder), "--prompt", "a", "--typical-p", "2"]) == 1
    assert "typical_p must lie in" in capsys.readouterr().err
    assert main(["generate", str(folder), "--prompt", "a", "--seed", "-1"]) == 1
    assert "seed is -1" in capsys.readouterr().err


def test_a_chat_reads_only_what_is_new(folder, monkeypatch, capsys):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    read, forward = [], Llama.forward

    def watched(self, input_ids, *args, **settings):
        read.append(np.shape(input_ids)[1])
        return forward(self, input_ids, *args, **settings)

    monkeypatch.setattr(Llama, "forward", watched)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nagain\n/reset\nhello\n"))
    options = ["--max-new-tokens", "3", "--min-new-tokens", "3", "--greedy", "--stop", "never"]
    assert main(["chat", str(folder), *options]) == 0
    out = capsys.readouterr().out
    first, answer = len("<user>hello\n<assistant>"), out.split("\n")[0].strip()
    assert read[0] == first
    assert len(read) == 9  # three tokens an answer
    assert read[3] <= len(f"{answer}\n<user>again\n<assistant>".encode())
    assert read[6] == 1  # what was said alike is known even after /reset
