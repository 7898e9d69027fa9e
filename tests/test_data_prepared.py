"""From a corpus to token files: exact, only once, and made again when anything that matters changed."""

import doctest
import importlib
import json
import os
from pathlib import Path

import pytest

from minilm.data import Corpus, DataError, PreparedData, prepare
from minilm.tokenization import Tokenizer, TokenizerRecipe

TEXT = "First citizen:\r\nBefore we proceed any further, hear me speak. 日本 é 😀\n\n" * 40


@pytest.fixture
def text_file(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode("utf-8"))
    return path


@pytest.mark.parametrize("recipe", [TokenizerRecipe("char"), TokenizerRecipe("byte"), TokenizerRecipe("bpe", 300)])
def test_a_file_becomes_its_tokens(tmp_path, text_file, recipe):
    data = prepare(text_file, recipe, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("data.json", "tokenizer.json", "train.tokens", "val.tokens")
    ]
    tokenizer = Tokenizer.from_file(data.tokenizer_path)
    cut = int(len(TEXT) * 0.9)
    eos = "" if tokenizer.eos_token is None else tokenizer.eos_token
    assert tokenizer.decode(data.train.tokens) == TEXT[:cut]
    assert tokenizer.decode(data.val.tokens) == TEXT[cut:] + eos
    data.train.check_tokenizer(tokenizer.digest)
    assert data.train.vocab_size == tokenizer.vocab_size
    assert data.train.eos_token_id == tokenizer.eos_token_id
    for name, text in (("train", TEXT[:cut]), ("val", TEXT[cut:])):
        counts = data.info[name]
        assert (counts["characters"], counts["bytes"]) == (len(text), len(text.encode("utf-8")))
        assert counts["tokens"] == len(getattr(data, name))


def test_in_small_pieces_it_is_the_same_as_at_once(tmp_path, text_file, monkeypatch):
    tokenizer = Tokenizer.train_bpe(TEXT, 320)
    whole = prepare(text_file, tokenizer, tmp_path / "whole")
    monkeypatch.setattr("minilm.data.prepared._BATCH_CHARACTERS", 300)
    monkeypatch.setattr("minilm.data.corpus.Document.chunks.__defaults__", (0, None, 64))
    pieces = prepare(text_file, tokenizer, tmp_path / "pieces")
    assert (tmp_path / "pieces/train.tokens").read_bytes() == (tmp_path / "whole/train.tokens").read_bytes()
    assert pieces.val.tokens.tolist() == whole.val.tokens.tolist()


def test_documents_end_with_the_end_of_text_token(tmp_path):
    for index in range(60):
        (tmp_path / f"{index:02}.txt").write_text(f"document {index}")
    data = prepare(tmp_path, Tokenizer.byte(["<eos>"]), tmp_path / "out")
    texts = []
    for file in (data.train, data.val):
        text = bytes(min(index, 255) for index in file.tokens).decode("latin-1")
        assert text.endswith("\xff")
        texts.append(text.split("\xff")[:-1])
    assert sorted(texts[0] + texts[1]) == sorted(f"document {index}" for index in range(60))
    assert 4 <= len(texts[1]) <= 8
    assert data.info["documents"] == 60


def test_skipped_files_are_in_the_manifest(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text(TEXT)
    (tmp_path / "in/b.txt").write_bytes(b"\xff\xfe")
    data = prepare(tmp_path / "in", TokenizerRecipe("byte"), tmp_path / "out")
    assert [name for name, _ in data.info["skipped"]] == ["b.txt"]


def test_a_validation_corpus_of_its_own(tmp_path, text_file):
    (tmp_path / "val.txt").write_text("held out: Ω")
    data = prepare(text_file, TokenizerRecipe("char"), tmp_path / "out", val_corpus=tmp_path / "val.txt")
    tokenizer = Tokenizer.from_file(data.tokenizer_path)
    assert tokenizer.decode(data.train.tokens) == TEXT
    assert tokenizer.decode(data.val.tokens) == "held out: Ω"
    assert data.info["val_fraction"] is None


class Counting(TokenizerRecipe):
    """A recipe that counts how often it was built."""

    built = 0

    def build(self, texts):
        type(self).built += 1
        return super().build(texts)


def test_prepared_once_and_again_only_when_something_changed(tmp_path, text_file):
    Counting.built = 0
    out = tmp_path / "out"

    def built(recipe="byte", vocab_size=None, **settings) -> int:
        prepare(text_file, Counting(recipe, vocab_size), out, **settings)
        return Counting.built

    assert [built(), built(), built()] == [1, 1, 1]
    assert [built("char"), built("char")] == [2, 2]
    assert [built("bpe", 300), built("bpe", 301), built("bpe", 301)] == [3, 4, 4]
    assert [built(val_fraction=0.2), built(val_fraction=0.2)] == [5, 5]
    stat = text_file.stat()
    os.utime(text_file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert [built(val_fraction=0.2), built(val_fraction=0.2)] == [6, 6]
    (out / "val.tokens").write_bytes((out / "val.tokens").read_bytes()[:-1])  # damaged, and its source is here
    assert [built(val_fraction=0.2), built(val_fraction=0.2)] == [7, 7]
    (out / "tokenizer.json").unlink()
    assert [built(val_fraction=0.2), built(val_fraction=0.2)] == [8, 8]


def test_a_ready_tokenizer_is_used_and_recognised(tmp_path, text_file):
    first = prepare(text_file, Tokenizer.byte(), tmp_path / "out")
    stamp = first.train.path.stat().st_mtime_ns
    assert prepare(text_file, Tokenizer.byte(), tmp_path / "out").train.path.stat().st_mtime_ns == stamp
    assert prepare(text_file, Tokenizer.byte(["<eos>"]), tmp_path / "out").train.vocab_size == 257


def test_progress_counts_all_characters(tmp_path, text_file, monkeypatch):
    monkeypatch.setattr("minilm.data.prepared._BATCH_CHARACTERS", 300)
    monkeypatch.setattr("minilm.data.corpus.Document.chunks.__defaults__", (0, None, 64))
    seen = []
    prepare(text_file, Tokenizer.byte(), tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert seen[-1] == (len(TEXT), len(TEXT))


def test_a_prepared_folder_opens_by_itself(tmp_path, text_file):
    out = tmp_path / "out"
    assert not PreparedData.is_prepared(out)
    made = prepare(text_file, Tokenizer.byte(), out)
    text_file.unlink()
    assert PreparedData.is_prepared(out)
    opened = PreparedData.open(out)
    assert opened.train.tokens.tolist() == made.train.tokens.tolist()
    assert opened.info == made.info


def test_a_prepared_folder_that_is_not_of_one_piece_is_refused(tmp_path, text_file):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"is no prepared folder: it has no data\.json"):
        PreparedData.open(tmp_path)
    prepare(text_file, Tokenizer.byte(), out)
    good = {path.name: path.read_bytes() for path in out.iterdir()}
    info = json.loads(good["data.json"])
    other = prepare(text_file, Tokenizer.char(TEXT), tmp_path / "other").train.path.read_bytes()
    wrong = {
        "data.json": [
            (b"{", r"data\.json is damaged"),
            (b"[]", r"data\.json is damaged"),
            (json.dumps({**info, "format": 99}).encode(), "has data format 99, this minilm reads 1"),
            (json.dumps({**info, "train": {"tokens": 3}}).encode(), r"data\.json says 3"),
        ],
        "train.tokens": [(good["train.tokens"][:-1], "train.tokens is damaged"), (other, "was made with tokenizer")],
        "val.tokens": [(b"", "is not a token file of minilm")],
        "tokenizer.json": [(b"{}", r"tokenizer\.json is missing or not the one")],
    }
    for name, cases in wrong.items():
        for content, message in cases:
            (out / name).write_bytes(content)
            with pytest.raises(DataError, match=message):
                PreparedData.open(out)
        (out / name).write_bytes(good[name])
    PreparedData.open(out)
    (out / "val.tokens").unlink()
    with pytest.raises(FileNotFoundError, match="no token file at"):
        PreparedData.open(out)


def test_a_corpus_that_can_not_be_used_writes_nothing(tmp_path, text_file):
    out = tmp_path / "out"
    (tmp_path / "short.txt").write_text("x")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty.txt").write_bytes(b"")
    for name, message in (("short", "leaves nothing for training"), ("latin", "not UTF-8"), ("empty", "is empty")):
        with pytest.raises(DataError, match=message):
            prepare(tmp_path / f"{name}.txt", TokenizerRecipe("byte"), out)
    with pytest.raises(ValueError, match="val_fraction"):
        prepare(text_file, TokenizerRecipe("byte"), out, val_fraction=0)
    assert not out.exists()


def test_an_interrupted_preparation_is_no_prepared_folder(tmp_path, text_file):
    out = tmp_path / "out"
    prepare(text_file, Tokenizer.byte(), out)
    with pytest.raises(ValueError, match="characters are not in this tokenizer"):
        prepare(text_file, Tokenizer.char("abc"), out)
    assert not PreparedData.is_prepared(out)
    assert not list(out.glob(".*.tmp"))
    assert len(prepare(Corpus(text_file), Tokenizer.byte(), out).train) > 0


@pytest.mark.parametrize("module", sorted(path.stem for path in Path(__file__).parents[1].glob("minilm/data/*.py")))
def test_examples_in_docstrings(module):
    name = "minilm.data" + ("" if module == "__init__" else f".{module}")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
