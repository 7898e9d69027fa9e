"""Tokenizers: exact round trips, the file format that others read, and errors that say what to do."""

import doctest
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.tokenization import Tokenizer, TokenizerRecipe

SAMPLE = "The quick brown fox jumps over the lazy dog. It's 2024, isn't it? def f(x):\n    return x + 1\n" * 20
BYTE = Tokenizer.byte()
BPE = Tokenizer.train_bpe(SAMPLE, vocab_size=310)
AWKWARD = [
    "",
    " ",
    "  leading",
    "a\r\nb\rc\n",
    "\x00\x01\x7f",
    "👩‍👩‍👧 é é ẞ",
    "\ufeffbom",
    "日本語 <|endoftext|> x",
    "\u2028\x85\xa0",
]


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None)
@given(st.text())
def test_every_text_comes_back(text):
    assert BPE.decode(BPE.encode(text)) == text
    assert BYTE.encode(text).tolist() == list(text.encode("utf-8"))
    assert BYTE.decode(BYTE.encode(text)) == text


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1))
def test_char_tokenizer_knows_its_own_text(text):
    tokenizer = Tokenizer.char(text)
    assert tokenizer.vocab_size == len(set(text))
    assert tokenizer.encode(text).tolist() == [sorted(set(text)).index(character) for character in text]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_char_tokenizer_is_made_from_pieces_too():
    assert Tokenizer.char(iter(["ab", "bc"])).digest == Tokenizer.char("abc").digest


def test_char_tokenizer_refuses_an_unknown_character_and_names_it(tmp_path):
    made = Tokenizer.char("abc ", special_tokens=["<|endoftext|>"])
    for tokenizer in (made, Tokenizer.from_file(made.save(tmp_path))):
        assert tokenizer.encode("a b<|endoftext|>").tolist() == [1, 0, 2, 4]
        with pytest.raises(ValueError, match=r"1 of the text's characters .* 4, the first '€' \(U\+20AC\)"):
            tokenizer.encode("abc€")


def test_bpe_merges_and_keeps_its_layout():
    assert BPE.vocab_size == 310
    assert BPE.eos_token_id == 0
    assert BPE.encode("<|endoftext|>").tolist() == [0]
    assert sorted(BPE.token_bytes[1:257]) == [bytes([byte]) for byte in range(256)]
    assert len(BPE.encode(SAMPLE)) < len(SAMPLE) / 2
    assert Tokenizer.train_bpe(iter([SAMPLE]), vocab_size=310).digest == BPE.digest
    # GPT-2's pre-tokenizer: a space belongs to the word after it, and no space is put before the first.
    pieces = [BPE.token_bytes[index] for index in BPE.encode("the dog")]
    assert pieces[0].startswith(b"t")
    assert [piece for piece in pieces if b" " in piece] == [piece for piece in pieces if piece.startswith(b" d")]


def test_bpe_of_a_short_text_has_fewer_tokens_than_asked():
    tokenizer = Tokenizer.train_bpe("abab", vocab_size=1000)
    assert 257 <= tokenizer.vocab_size < 300
    assert Tokenizer.train_bpe("", vocab_size=300).vocab_size == 257


def test_bpe_needs_room_for_the_bytes():
    with pytest.raises(ValueError, match="vocab_size is 256, and byte-level BPE needs at least 257"):
        Tokenizer.train_bpe("text", vocab_size=256)
    assert Tokenizer.train_bpe("text", vocab_size=256, special_tokens=()).eos_token_id is None


@pytest.mark.parametrize(
    "make",
    [
        lambda special: Tokenizer.byte(special),
        lambda special: Tokenizer.char("abc", special),
        lambda special: Tokenizer.train_bpe("abc", 300, special),
    ],
)
def test_special_tokens_that_are_a_text_are_refused(make):
    with pytest.raises(TypeError, match=r"special_tokens is a text; expected a list of tokens: .*\['<eos>'\]"):
        make("<eos>")


def test_a_tokenizer_of_a_path_is_told_how_it_is_loaded():
    with pytest.raises(TypeError, match=r"not a str; Tokenizer\.from_file\(path\) or \.from_pretrained"):
        Tokenizer("tokenizer.json")


def test_special_tokens_of_byte():
    tokenizer = Tokenizer.byte(special_tokens=["<eos>", "<pad>"])
    assert (tokenizer.vocab_size, tokenizer.eos_token_id, tokenizer.special_ids) == (258, 256, {256, 257})
    assert tokenizer.decode([97, 256, 98]) == "a<eos>b"
    assert tokenizer.decode([97, 256, 98], skip_special_tokens=True) == "ab"
    assert (BYTE.vocab_size, BYTE.eos_token_id) == (256, None)


def test_batch_is_the_texts_one_by_one():
    for ids, text in zip(BPE.encode_batch(AWKWARD), AWKWARD, strict=True):
        assert ids.dtype == np.int64
        assert ids.tolist() == BPE.encode(text).tolist()
    assert BPE.encode_batch([]) == []


def test_wrong_input_is_named():
    with pytest.raises(TypeError, match="expected text to encode, a str, got bytes"):
        BPE.encode(b"text")
    with pytest.raises(ValueError, match="surrogates not allowed"):
        BPE.encode("a\ud800")
    for ids, wrong in (([310], "id 310"), ([5, -1], "id -1")):
        with pytest.raises(ValueError, match=f"{wrong} is not in the vocabulary: ids go from 0 to 309"):
            BPE.decode(ids)
    for ids in ([1.5], [[1, 2]], np.array(3)):
        with pytest.raises(ValueError, match="flat sequence of integer ids"):
            BPE.decode(ids)
    with pytest.raises(ValueError, match="at least one character"):
        Tokenizer.char("")
    assert BPE.decode([]) == ""


@pytest.mark.parametrize(
    "tokenizer", [BYTE, BPE, Tokenizer.char(SAMPLE), Tokenizer.byte(["<only>"])], ids=["byte", "bpe", "char", "special"]
)
def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    for loaded in (Tokenizer.from_file(path), Tokenizer.from_file(tmp_path)):
        assert loaded.digest == tokenizer.digest
        assert (loaded.eos_token, loaded.eos_token_id) == (tokenizer.eos_token, tokenizer.eos_token_id)
        assert loaded.encode(SAMPLE).tolist() == tokenizer.encode(SAMPLE).tolist()


def test_digests_tell_tokenizers_apart():
    others = [BYTE, BPE, Tokenizer.byte(["<eos>"]), Tokenizer.char("abc"), Tokenizer.char("abd")]
    assert len({tokenizer.digest for tokenizer in others}) == len(others)
    assert len(bytes.fromhex(BYTE.digest)) == 32


def test_end_of_text_token_is_found(tmp_path):
    path = Tokenizer.byte(["<a>", "<b>"]).save(tmp_path)
    assert Tokenizer.from_file(path).eos_token is None  # two, and neither has a usual name: not guessed
    assert Tokenizer.from_file(path, eos_token="<b>").eos_token_id == 257
    for eos in ("<a>", {"content": "<a>"}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
        assert Tokenizer.from_file(path).eos_token_id == 256
    with pytest.raises(ValueError, match="'<c>' is not in the vocabulary"):
        Tokenizer.from_file(path, eos_token="<c>")


def test_truncation_of_a_loaded_file_is_off(tmp_path):
    path = Tokenizer.byte().save(tmp_path)
    from tokenizers import Tokenizer as Library

    library = Library.from_file(str(path))
    library.enable_truncation(3)
    library.enable_padding(length=9)
    library.save(str(path))
    assert len(Tokenizer.from_file(path).encode("five!")) == 5


def test_files_that_are_no_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer file at .*nowhere"):
        Tokenizer.from_file(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no tokenizer file at"):
        Tokenizer.from_file(tmp_path)
    for content in (b"", b'{"a": 1}', b"\xff\x00"):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"is not a tokenizer\.json"):
            Tokenizer.from_file(tmp_path)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("tokenizer", [BYTE, BPE, Tokenizer.char(SAMPLE)], ids=["byte", "bpe", "char"])
def test_transformers_reads_the_file_and_agrees(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer.save(tmp_path)))
    ids = tokenizer.encode(SAMPLE).tolist()
    assert theirs.encode(SAMPLE, add_special_tokens=False) == ids
    assert theirs.decode(ids, clean_up_tokenization_spaces=False) == SAMPLE
    assert len(theirs) == tokenizer.vocab_size


def test_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="pip install tokenizers"):
        Tokenizer.byte()


def test_recipes(tmp_path):
    path = Tokenizer.byte(["<eos>"]).save(tmp_path / "mine.json")
    keys = [TokenizerRecipe(kind).key for kind in ("char", "byte", "bpe", str(path))]
    assert len(set(keys)) == 4
    assert TokenizerRecipe("bpe", 300).key != TokenizerRecipe("bpe").key
    assert TokenizerRecipe("char").build(iter(["ab", "c"])).vocab_size == 3
    assert TokenizerRecipe("byte").build(iter([])).vocab_size == 256
    assert TokenizerRecipe("bpe", 300).build(iter([SAMPLE])).vocab_size == 300
    assert TokenizerRecipe(str(path)).build(iter([])).eos_token == "<eos>"
    with pytest.raises(ValueError, match="vocab_size=300 is for the tokenizer 'bpe'"):
        TokenizerRecipe("byte", 300)
    with pytest.raises(
        FileNotFoundError, match=r"'char', 'byte', 'bpe' or the path of a tokenizer\.json; 'word' is none"
    ):
        TokenizerRecipe("word")


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in Path(__file__).parents[1].glob("minilm/tokenization/*.py"))
)
def test_examples_in_docstrings(module):
    name = "minilm.tokenization" + ("" if module == "__init__" else f".{module}")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
