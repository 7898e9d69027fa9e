"""SentencePiece models, trained here: the library itself and transformers give the same ids and texts."""

import io
import json
from pydoc_data.topics import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.tokenization import StreamDecoder, Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")
pytestmark = pytest.mark.filterwarnings("default")  # transformers' own

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, isn't it?",
    "We don't know; they have said so in 2024.",
    "Déjà vu: naïve café, Ångström, Straße.",
    "我们喜欢自然语言处理。机器学习很有趣!",
    "Wir übersetzen kurze Sätze aus dem Englischen.",
    "Machine translation reads one sentence and writes another.",
] * 20
ENGLISH = [line.strip() for line in topics["assignment"].splitlines() if line.strip()][:150]  # of any Python
TEXTS = [
    "",
    "The quick brown fox isn't lazy.",
    "Déjà vu Ångström",
    "自然语言处理 and 机器学习。",
    "👩‍👩‍👧 😀 unknown ☃ 12345",
    "</s> written <unk> out <pad> x",
    "word" * 300,
    "a long text, with words. " * 200,
]
KINDS = {
    "llama": {
        "model_type": "bpe",
        "vocab_size": 520,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 1.0,
    },
    "t5": {"model_type": "unigram", "vocab_size": 230, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "unigram-bytes": {"model_type": "unigram", "vocab_size": 480, "byte_fallback": True},
}


def train(sentences=(*SENTENCES, *ENGLISH), **options) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=out, hard_vocab_limit=False, minloglevel=2, **options
    )
    return out.getvalue()


@pytest.fixture(scope="module")
def models():
    return {kind: train(**options) for kind, options in KINDS.items()}


def folder_of(folder, models, kind, **config):
    folder.joinpath("spiece.model" if kind == "t5" else "tokenizer.model").write_bytes(models[kind])
    names = {"llama": "LlamaTokenizer", "t5": "T5Tokenizer"}
    if kind in names:
        config = {"tokenizer_class": names[kind], **config}
    folder.joinpath("tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def loaded(models, tmp_path_factory):
    """(ours, sentencepiece's own) for each kind."""
    folders = {kind: folder_of(tmp_path_factory.mktemp(kind), models, kind) for kind in KINDS}
    return {
        kind: (Tokenizer.from_pretrained(folder), sentencepiece.SentencePieceProcessor(model_proto=models[kind]))
        for kind, folder in folders.items()
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_transformers_agrees(tmp_path, models, kind, legacy):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("google.protobuf")
    config = {"add_bos_token": True, "add_eos_token": False} if kind == "llama" else {}
    config["legacy"] = legacy
    folder = folder_of(tmp_path, models, kind, **config)
    ours, theirs = Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False), text[:40]
        ids = theirs.encode(text)
        assert ours.encode(text, add_special_tokens=True).tolist() == ids
        for skip in (False, True):
            expected = theirs.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
    batch = {"padding": True, "truncation": True, "max_length": 16}
    if kind == "t5":
        pair = ours(TEXTS[1:3], TEXTS[2:4], **batch).input_ids.tolist()
        assert pair == theirs(TEXTS[1:3], TEXTS[2:4], **batch)["input_ids"]
    for name in ("bos", "eos", "unk", "pad"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id"), name
    assert ours.vocab_size == len(theirs)
    assert ours.padding_side == theirs.padding_side


@pytest.mark.parametrize("kind", list(KINDS))
def test_sentencepiece_itself_agrees(tmp_path, models, kind):
    processor = sentencepiece.SentencePieceProcessor(model_proto=models[kind])
    ours = Tokenizer.from_pretrained(folder_of(tmp_path, models, kind))
    for text in [text for text in TEXTS if "<" not in text]:
        ids = processor.encode(text)
        assert ours.encode(text).tolist() == ids, text[:40]
        if processor.unk_id() not in ids:
            assert ours.decode(ids) == processor.decode(ids)


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=[*"abcdefghijklmnopqrstuvwxyz .,'ABCÅéüß我们自然语言处理2ﬁ"], max_size=30))
def test_any_text_of_the_alphabet_is_cut_as_sentencepiece_cuts_it(loaded, text):
    for kind, (ours, processor) in loaded.items():
        if kind == "llama":  # as in transformers, no space is put before a text that begins with one
            text = text.lstrip(" ")
        assert ours.encode(text).tolist() == processor.encode(text), kind


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("add_dummy_prefix", [True, False])
@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity"])
def test_extra_spaces_go_as_in_sentencepiece(tmp_path, model_type, add_dummy_prefix, rule):
    options = {"add_dummy_prefix": add_dummy_prefix, "normalization_rule_name": rule}  # the first ones are the default
    model = train(model_type=model_type, vocab_size=520, **options)
    tmp_path.joinpath("tokenizer.model").write_bytes(model)
    ours, theirs = Tokenizer.from_pretrained(tmp_path), sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in (" the", "  the", "the ", "a   the", " ", "   ", "\nthe", "the\n", " \n the \n", "\tthe\t", "\n"):
        assert ours.encode(text).tolist() == theirs.encode(text), repr(text)


@pytest.mark.parametrize("kind", list(KINDS))
def test_saved_as_tokenizer_json_it_is_the_same(tmp_path, models, kind):
    ours = Tokenizer.from_pretrained(folder_of(tmp_path, models, kind))
    loaded = Tokenizer.from_file(ours.save(tmp_path / "saved.json"))
    assert loaded.digest == ours.digest
    for text in TEXTS:
        assert (
            loaded.encode(text, add_special_tokens=True).tolist() == ours.encode(text, add_special_tokens=True).tolist()
        )


@pytest.mark.parametrize("kind", ["llama", "unigram-bytes"])
@settings(deadline=None, max_examples=60)
@given(text=st.text(alphabet=st.sampled_from("ab é我们😀👩‍👩‍👧☃ "), max_size=20))
def test_streaming_joins_to_the_whole(loaded, kind, text):
    tokenizer, _ = loaded[kind]
    ids = tokenizer.encode(text)
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(index) for index in ids] + [decoder.finish()]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_t5_has_its_sentinels(tmp_path, models):
    tokenizer = Tokenizer.from_pretrained(folder_of(tmp_path, models, "t5", extra_ids=3))
    size = tokenizer.vocab_size
    assert tokenizer.encode("<extra_id_0> a <extra_id_2>")[[0, -1]].tolist() == [size - 1, size - 3]


@pytest.mark.parametrize("number", [-1, 10**9, "3", 1.5])
def test_t5_refuses_other_numbers_of_sentinels(tmp_path, models, number):
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: extra_ids is .*; expected 0 to 10,000"):
        Tokenizer.from_pretrained(folder_of(tmp_path, models, "t5", extra_ids=number))


def test_llama_follows_its_config(tmp_path, models):
    folder = folder_of(tmp_path, models, "llama", add_bos_token=False, add_eos_token=True)
    tokenizer = Tokenizer.from_pretrained(folder)
    ids = tokenizer.encode("fox", add_special_tokens=True).tolist()
    assert (ids[0] != tokenizer.bos_token_id, ids[-1]) == (True, tokenizer.eos_token_id)
    assert tokenizer("fox").keys() == {"input_ids", "attention_mask"}


# -- Marian -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marian_folder(tmp_path_factory):
    """Two models and a vocab.json that lacks some pieces, has a language code, and numbers them its own way."""
    folder = tmp_path_factory.mktemp("marian")
    pieces = set()
    for name, sentences in (("source.spm", ENGLISH), ("target.spm", SENTENCES)):
        proto = train(sentences, model_type="unigram", vocab_size=260)
        folder.joinpath(name).write_bytes(proto)
        processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        pieces |= {processor.id_to_piece(index) for index in range(3, processor.get_piece_size())}
    kept = sorted(pieces)[5:]
    tokens = ["</s>", "<unk>", *kept, ">>deu<<", "<pad>"]
    folder.joinpath("vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    config = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de", "model_max_length": 512}
    folder.joinpath("tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_marian_is_as_in_transformers(marian_folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.MarianTokenizer.from_pretrained(marian_folder)
    ours = Tokenizer.from_pretrained(marian_folder)
    texts = [*TEXTS, ">>deu<< The fox", ">>xyz<<The", "a >>deu<< b", "two  spaces \n and lines"]
    for text in texts:
        for special in (False, True):
            expected = theirs(text, add_special_tokens=special)
            assert ours(text, add_special_tokens=special).input_ids[0].tolist() == expected["input_ids"], text[:40]
        ids = expected["input_ids"]
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
        target = ours.target(text).input_ids[0].tolist()
        assert target == theirs(text_target=text)["input_ids"]
        assert ours.decode(target) == theirs.decode(target)
        assert ours.target.decode(target) == theirs.decode(target, use_source_tokenizer=False)
    options = {"padding": True, "truncation": True, "max_length": 9}
    expected = theirs(texts, return_tensors="np", **options)
    batch = ours(texts, **options)
    assert batch.keys() == set(expected.keys()) == {"input_ids", "attention_mask"}
    for name, array in batch.items():
        assert array.tolist() == expected[name].tolist()
    assert (ours.eos_token_id, ours.unk_token_id, ours.pad_token_id) == (0, 1, ours.vocab_size - 1)
    assert ours.vocab_size == len(theirs)


def test_marian_offsets_point_into_the_text(marian_folder):
    text = ">>deu<< The fox</s> jumps 😀"
    batch = Tokenizer.from_pretrained(marian_folder)(text, return_offsets_mapping=True)
    spans = [text[start:end] for start, end in batch.offset_mapping[0].tolist()]
    assert spans[0] == ">>deu<<"
    assert "</s>" in spans
    assert "".join(spans) == text.replace(" fox</s> ", " fox</s>").replace("<< ", "<<")  # a space at the start goes


def test_marian_target_is_another_tokenizer(marian_folder):
    tokenizer = Tokenizer.from_pretrained(marian_folder)
    assert tokenizer.target.digest != tokenizer.digest
    assert tokenizer.target.eos_token == "</s>"
    assert "Marian" in repr(tokenizer)
    byte = Tokenizer.byte()
    assert byte.target is byte


@pytest.mark.parametrize("separate", [False, True])
def test_marian_is_saved_as_its_own_files(marian_folder, tmp_path, separate):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "first"
    folder.mkdir()
    for file in marian_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if separate:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "separate_vocabs": True}))
        tokens = list(json.loads((folder / "vocab.json").read_text()))
        tokens = [*tokens[:2], *tokens[-3:1:-1], *tokens[-2:]]  # the pieces the other way round
        (folder / "target_vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    tokenizer = Tokenizer.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"save_pretrained\(folder\)"):
        tokenizer.save(tmp_path)
    tokenizer.save_pretrained(tmp_path / "second")
    loaded = Tokenizer.from_pretrained(tmp_path / "second")
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path / "second")
    assert (loaded.digest, loaded.target.digest) == (tokenizer.digest, tokenizer.target.digest)
    for text in TEXTS:
        ids = theirs(text_target=text)["input_ids"]
        assert loaded(text).input_ids[0].tolist() == theirs(text)["input_ids"]
        assert loaded.target(text).input_ids[0].tolist() == ids
        assert loaded.decode(ids) == theirs.decode(ids)


# -- damage -----------------------------------------------------------------------------------------------------------


def test_a_renumbered_family_is_refused(tmp_path, models):
    folder = folder_of(tmp_path, models, "unigram-bytes", tokenizer_class="XLMRobertaTokenizer")
    with pytest.raises(ValueError, match=r"tokenizer\.model: a XLMRobertaTokenizer numbers .* tokenizer\.json beside"):
        Tokenizer.from_pretrained(folder)


def test_other_models_are_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(train(model_type="char"))
    with pytest.raises(ValueError, match=r"tokenizer\.model: only SentencePiece's unigram and BPE"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", list(KINDS))
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_model_is_a_value_error(models, tmp_path_factory, kind, data):
    good = models[kind]
    place = data.draw(st.integers(0, len(good) - 1))
    rubbish = data.draw(st.binary(min_size=1, max_size=4))
    bad = data.draw(st.sampled_from([good[:place], good[:place] + rubbish + good[place + 4 :], rubbish, b""]))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "tokenizer.model").write_bytes(bad)
    said = "tokenizer.model"
    try:
        Tokenizer.from_pretrained(folder).encode("a text")
    except ValueError as error:
        said = str(error)
    assert "tokenizer.model" in said


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"<unk>": 0, "</s>": "x"}'])
def test_a_damaged_marian_vocabulary_is_named(marian_folder, tmp_path, content):
    for file in marian_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(ValueError, match=r"vocab\.json"):
        Tokenizer.from_pretrained(tmp_path)
