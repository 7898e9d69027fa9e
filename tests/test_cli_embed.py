"""`minilm embed`, as a user runs it."""

import io
import json
import sys

import numpy as np
import pytest

from minilm.backend import Generator
from minilm.cli.main import main
from minilm.models import Bert, BertConfig
from minilm.models.sentence import SentenceEmbedder
from minilm.tokenization import Tokenizer

LINES = ["a first line", "", "你好, and a very long one that goes on and on", "the last"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small encoder whose tokens are bytes; a token goes before each text, so that none is empty."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.byte(["[PAD]", "[CLS]"])
    processors = pytest.importorskip("tokenizers.processors", reason="the tokenizers library is not installed")
    tokenizer.library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]"))]
    )
    tokenizer.save(folder)
    config = BertConfig(
        vocab_size=258, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.3, pad_token_id=256,
    )  # fmt: skip
    Bert(config, Generator(0)).save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def test_lines_become_an_array(folder, texts, tmp_path, capsys):
    out = tmp_path / "vectors.npy"
    assert main(["embed", str(folder), str(texts), "--output", str(out), "--batch-tokens", "9"]) == 0
    found = np.load(out)
    assert found.dtype == np.float32
    # The last bit of a product of one row by OpenBLAS depends on where in memory the weights lie.
    np.testing.assert_allclose(found, SentenceEmbedder.from_pretrained(folder)(LINES, 9), atol=1e-6)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("4 vectors of 16 numbers, ")


def test_one_line_is_one_vector(folder, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("a b\n", encoding="utf-8")
    assert main(["embed", str(folder), str(tmp_path / "one.txt"), "--output", str(tmp_path / "v.npy")]) == 0
    assert capsys.readouterr().err.startswith("1 vector of 16 numbers, ")


def test_lines_become_json_lines_with_every_digit(folder, texts, tmp_path, capsysbinary):
    settings = ["--pooling", "cls", "--normalize", "False", "--max-length", "5"]
    expected = SentenceEmbedder.from_pretrained(folder, "cls", False, 5)(LINES)
    assert main(["embed", str(folder), str(texts), *settings]) == 0
    printed = capsysbinary.readouterr().out
    rows = [json.loads(line) for line in printed.decode("utf-8").splitlines()]
    assert [row["text"] for row in rows] == LINES
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], np.float32), expected)
    out = tmp_path / "vectors.jsonl"
    assert main(["embed", str(folder), str(texts), *settings, "--output", str(out)]) == 0
    assert out.read_bytes() == printed


def test_texts_come_from_the_standard_input_too(folder, tmp_path, monkeypatch, capsysbinary):
    for content, count in (("one\r\ntwo", 2), ("", 0), ("\n", 1)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert main(["embed", str(folder), "-"]) == 0
        printed = capsysbinary.readouterr().out.decode().splitlines()
        assert len(printed) == count
        if content:
            assert [json.loads(line)["text"] for line in printed] == content.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "TEXTS", "--output", "vectors.txt"], "ends in .npy or .jsonl"),
        (["MODEL", "nowhere.txt"], "nowhere.txt"),
        (["nowhere", "TEXTS"], "there is no folder nowhere"),
        (["MODEL", "LATIN"], "is not UTF-8"),
        (["MODEL", "TEXTS", "--max-length", "65"], "max_length is 1 to 64"),
        (["MODEL", "TEXTS", "--batch-tokens", "0"], "batch_tokens is at least 1"),
    ],
)
def test_errors_are_one_line(arguments, message, folder, texts, tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    places = {"MODEL": folder, "TEXTS": texts, "LATIN": tmp_path / "latin.txt"}
    assert main(["embed", *(str(places.get(word, word)) for word in arguments)]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("minilm: error: ")
    assert message in printed
    assert printed.count("\n") == 1
