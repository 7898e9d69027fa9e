"""Tokenizers from GGUF metadata: the same as transformers reads from a GGUF file, and as the model's own."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.tokenization import StreamDecoder, Tokenizer

pytestmark = pytest.mark.filterwarnings("default")  # transformers' own

SAMPLE = (
    "The quick brown fox jumps over the lazy dog, isn't it? WE'LL see 2024 and 123456. "
    "Déjà vu: naïve café. 我们 喜欢 自然语言处理。机器学习很有趣! def f(x):\n    return x + 1\n\n"
)
TEXTS = [
    "",
    SAMPLE,
    " lead",
    "👩‍👩‍👧 😀 ☃",
    "a <|im_start|>user\nhé<|im_end|> <think>b",
    "x" * 2000,
    "\r\n\t  \n 7 77 7777",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"


def byte_level(**more) -> dict:
    model = json.loads(Tokenizer.train_bpe([SAMPLE] * 5, 340, special_tokens=SPECIAL).library.to_str())["model"]
    tokens = [*sorted(model["vocab"], key=model["vocab"].get), "<think>"]
    values = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [3, 3, 3, *[1] * (len(tokens) - 4), 4],
        "merges": [" ".join(pair) for pair in model["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "padding_token_id": 2,
        "add_bos_token": False,
        **more,
    }
    metadata = {f"tokenizer.ggml.{name}": value for name, value in values.items() if value is not None}
    return metadata | {"general.architecture": "llama", "tokenizer.chat_template": TEMPLATE}


def sentencepiece_model() -> bytes:
    library = pytest.importorskip("sentencepiece")
    out = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter([SAMPLE] * 10 + SAMPLE.split(" ")),
        model_writer=out,
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        user_defined_symbols=["<think>"],
        minloglevel=2,
    )
    return out.getvalue()


@pytest.fixture(scope="module")
def spm():
    return sentencepiece_model()


@pytest.fixture(scope="module")
def loaded(spm):
    return {"gpt2": Tokenizer.from_gguf(byte_level(pre="smollm")), "llama": Tokenizer.from_gguf(llama(spm))}


def llama(proto: bytes, **more) -> dict:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor()
    model.LoadFromSerializedProto(proto)
    ids = range(model.get_piece_size())
    tokens = [model.id_to_piece(i) for i in ids]
    types = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in ids]
    types[tokens.index("<think>")] = 4
    values = {
        "model": "llama",
        "tokens": tokens,
        "scores": [model.get_score(i) for i in ids],
        "token_type": types,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        **more,
    }
    metadata = {f"tokenizer.ggml.{name}": value for name, value in values.items() if value is not None}
    return metadata | {"general.architecture": "llama"}


def theirs_from(folder, metadata):
    """What transformers makes of a GGUF file with this metadata and no tensor to speak of."""
    transformers, gguf = pytest.importorskip("transformers"), pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    for name, value in metadata.items():
        if name == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.add_tensor("token_embd.weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")


def same(ours, theirs, texts=TEXTS):
    for text in texts:
        for special in (False, True):
            ids = theirs.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special).tolist() == ids, text[:40]
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    for name in ("bos", "eos", "unk", "pad"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id"), name
    assert ours.vocab_size == len(theirs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_bos_token": True, "add_eos_token": True},
        {"pre": None},
        {"pre": "qwen2"},
        {"pre": "llama-bpe", "add_bos_token": None, "merges": "all"},
    ],
    ids=["gpt2", "framed", "no-pre", "qwen2", "llama3"],
)
def test_byte_level_is_as_transformers_reads_it(tmp_path, options):
    frame = {"add_bos_token": True} if options.pop("merges", None) else {}
    metadata = byte_level(**options | frame)
    ours, theirs = Tokenizer.from_gguf(metadata), theirs_from(tmp_path, metadata)
    same(ours, theirs)
    chat = [{"role": "user", "content": "日本 😀?"}]
    ids = ours.apply_chat_template(chat)
    assert ids.tolist() == theirs.apply_chat_template(chat)["input_ids"]
    assert ours.special_ids == {0, 1, 2}
    for text in TEXTS:
        assert ours.decode(ours.encode(text)) == text


def test_llama_3_begins_a_text_by_itself():
    metadata = byte_level(pre="llama-bpe", add_bos_token=None)
    assert Tokenizer.from_gguf(metadata).encode("a", add_special_tokens=True)[0] == 1
    # A whole word that is a token is taken though no merge leads to it.
    tokens = metadata["tokenizer.ggml.tokens"]
    more = {"tokenizer.ggml.tokens": [*tokens, "zqzqzq"], "tokenizer.ggml.token_type": [1] * (len(tokens) + 1)}
    assert Tokenizer.from_gguf(metadata | more).encode("zqzqzq").tolist() == [len(tokens)]


def test_smollm_splits_digits():
    """As the tokenizer.json of that family does: each digit alone, then GPT-2's words."""
    tokens = [*byte_level()["tokenizer.ggml.tokens"], "12"]
    merges = [*byte_level()["tokenizer.ggml.merges"], "1 2"]
    more = {"tokens": tokens, "merges": merges, "token_type": [1] * len(tokens)}
    digits = Tokenizer.from_gguf(byte_level(pre="smollm", **more))
    assert [digits.id_to_token(index) for index in digits.encode("12 12")] == ["1", "2", "Ġ", "1", "2"]
    plain = Tokenizer.from_gguf(byte_level(pre="gpt-2", **more))
    assert len(plain.encode("12")) == 1


@pytest.mark.parametrize("options", [{}, {"add_bos_token": False, "add_eos_token": True}], ids=["plain", "ends"])
def test_sentencepiece_is_as_transformers_reads_it(tmp_path, spm, options):
    metadata = llama(spm, **options)
    same(Tokenizer.from_gguf(metadata), theirs_from(tmp_path, metadata))


def test_sentencepiece_is_as_the_model_file(tmp_path, spm):
    (tmp_path / "tokenizer.model").write_bytes(spm)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    from_file, from_gguf = Tokenizer.from_pretrained(tmp_path), Tokenizer.from_gguf(llama(spm))
    for text in TEXTS:
        expected = from_file.encode(text, add_special_tokens=True).tolist()
        assert from_gguf.encode(text, add_special_tokens=True).tolist() == expected
    bare = Tokenizer.from_gguf(llama(spm, add_space_prefix=False))
    assert bare.decode(bare.encode("fox")) == "fox"
    assert bare.encode(" fox").tolist() == from_gguf.encode("fox").tolist()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@settings(deadline=None, max_examples=60)
@given(text=st.text(alphabet=st.sampled_from("ab é我们😀👩‍👩‍👧☃\n "), max_size=20))
def test_streaming_joins_to_the_whole(loaded, kind, text):
    tokenizer = loaded[kind]
    ids = tokenizer.encode(text)
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(index) for index in ids] + [decoder.finish()]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_saved_it_is_the_same(tmp_path, spm):
    for number, metadata in enumerate((byte_level(), llama(spm))):
        tokenizer = Tokenizer.from_gguf(metadata)
        tokenizer.save_pretrained(tmp_path / str(number))
        loaded = Tokenizer.from_pretrained(tmp_path / str(number))
        assert (loaded.digest, loaded.special_tokens) == (tokenizer.digest, tokenizer.special_tokens)
        assert loaded.chat_templates == tokenizer.chat_templates


def test_chat_templates_by_name():
    metadata = byte_level() | {"tokenizer.chat_template.tool_use": "tools"}
    assert Tokenizer.from_gguf(metadata).chat_templates == {"default": TEMPLATE, "tool_use": "tools"}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("model", None, "lacks tokenizer.ggml.model"),
        ("model", "bert", "names the tokenizer model 'bert'; 'gpt2' .* take the model's tokenizer.json"),
        ("model", 5, "expected str"),
        ("pre", "unheard-of", "names the pre-tokenizer 'unheard-of'; supported are .*llama-bpe"),
        ("tokens", None, "lacks tokenizer.ggml.tokens"),
        ("tokens", [], "has no tokens"),
        ("tokens", "abc", "tokens is not a list of str"),
        ("tokens", ["a", 1], "tokens is not a list of str"),
        ("tokens", ["a", "a"], "token types|two ids"),
        ("token_type", [1], "token types"),
        ("token_type", ["1"], "token_type is not a list of int"),
        ("merges", None, "lacks tokenizer.ggml.merges"),
        ("merges", ["abc"], "'abc' is no merge"),
        ("merges", ["not there"], "holds no usable tokenizer"),
        ("bos_token_id", 10**6, "bos_token_id is 1000000; ids go from 0 to"),
        ("bos_token_id", -1, "ids go from 0 to"),
        ("bos_token_id", "1", "expected int"),
        ("add_bos_token", 1, "expected bool"),
    ],
)
def test_damaged_metadata_is_named(key, value, says):
    with pytest.raises(ValueError, match="the GGUF metadata.*" + says):
        Tokenizer.from_gguf(byte_level(**{key: value}))


def test_damaged_metadata_of_sentencepiece_is_named(spm):
    for more, says in (({"scores": None}, "lacks tokenizer.ggml.scores"), ({"scores": [1.0]}, "1 scores and")):
        with pytest.raises(ValueError, match=says):
            Tokenizer.from_gguf(llama(spm, **more))
    with pytest.raises(ValueError, match="of a gemma2"):
        Tokenizer.from_gguf(llama(spm) | {"general.architecture": "gemma2"})
    with pytest.raises(ValueError, match="chat_template is a int; expected text"):
        Tokenizer.from_gguf(llama(spm) | {"tokenizer.chat_template": 1})


def test_numpy_values_are_taken_too():
    metadata = byte_level()
    types = np.array(metadata["tokenizer.ggml.token_type"], np.int32)
    changed = metadata | {"tokenizer.ggml.token_type": types, "tokenizer.ggml.bos_token_id": np.uint32(1)}
    assert Tokenizer.from_gguf(changed).digest == Tokenizer.from_gguf(metadata).digest


RUBBISH = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
KEYS = [*sorted(byte_level()), "tokenizer.ggml.scores"]


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(["gpt2", "llama"]), key=st.sampled_from(KEYS), value=RUBBISH)
def test_rubbish_is_a_value_error(kind, key, value):
    metadata = byte_level(model=kind, scores=[0.0] * 340) | {key: value}
    said = "GGUF"
    try:
        Tokenizer.from_gguf(metadata).encode("a text 日本", add_special_tokens=True)
    except ValueError as error:
        said = str(error)
    assert "GGUF" in said
