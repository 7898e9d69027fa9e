"""BERT's files and config: transformers', old ones, parts of others, misfits, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_bert import CLASSES, IDS, TINY, arrays, tiny

from minilm import models
from minilm.checkpoint import load_weights, save_weights
from minilm.models import (
    Bert,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForTokenClassification,
)

# Files.


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_fresh_models_of_transformers_load(kind, changes, transformers, torch, tmp_path):
    peer = getattr(transformers, kind.architecture)(transformers.BertConfig(**TINY, **changes)).eval()
    peer.save_pretrained(tmp_path)
    model = models.load(tmp_path)
    assert type(model) is kind
    assert not model.training
    with torch.no_grad():
        expected = arrays(peer(torch.from_numpy(IDS)))
    for name, value in arrays(model(IDS)).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-5)
    assert model.config.to_dict()["hidden_size"] == 24


def test_labels_go_to_transformers_and_back(transformers, tmp_path):
    names = {0: "bad", 1: "fair", 2: "good"}
    tiny(BertForTokenClassification, id2label=names, problem_type="single_label_classification").save_pretrained(
        tmp_path
    )
    config = transformers.BertConfig.from_pretrained(tmp_path)
    assert (config.num_labels, config.id2label, config.label2id["good"]) == (3, names, 2)
    assert config.problem_type == "single_label_classification"
    config.save_pretrained(tmp_path)
    back = BertConfig.from_dict(json.loads((tmp_path / "config.json").read_text()))
    assert (back.num_labels, back.id2label) == (3, names)
    assert BertConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert "id2label" not in BertConfig().to_dict()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_old_names_missing_prefixes_and_stored_buffers_are_known(kind, tmp_path):
    model = tiny(kind)
    model.save_pretrained(tmp_path)
    old = {}
    for name, value in model.state_dict().items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old[name.removeprefix("bert.") if kind is not Bert else f"bert.{name}"] = value
    old["bert.embeddings.position_ids"] = np.arange(16)[None]
    old["bert.embeddings.token_type_ids"] = np.zeros((1, 16), np.int64)
    save_weights(tmp_path / "model.safetensors", old)
    found, expected = arrays(kind.from_pretrained(tmp_path)(IDS)), arrays(model(IDS))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_each_class_takes_its_part_of_a_file_with_both_heads_of_pretraining(tmp_path):
    model = tiny(BertForPreTraining)
    model.save_pretrained(tmp_path)
    expected = model(IDS)
    encoder = Bert.from_pretrained(tmp_path)
    np.testing.assert_array_equal(encoder(IDS).pooler_output.data, model.bert(IDS).pooler_output.data)
    assert Bert.from_pretrained(tmp_path, add_pooling_layer=False)(IDS).pooler_output is None
    logits = BertForMaskedLM.from_pretrained(tmp_path)(IDS).logits.data
    np.testing.assert_array_equal(logits, expected.prediction_logits.data)
    with pytest.raises(KeyError, match=r"Missing: classifier.weight, classifier.bias"):
        BertForTokenClassification.from_pretrained(tmp_path)
    fresh = BertForTokenClassification(encoder.config).eval()  # what its docstring says
    fresh.bert = Bert.from_pretrained(tmp_path, add_pooling_layer=False)
    hidden = fresh(IDS, output_hidden_states=True).hidden_states[-1].data
    np.testing.assert_array_equal(hidden, encoder(IDS).last_hidden_state.data)
    BertForMaskedLM.from_pretrained(tmp_path).save_pretrained(tmp_path)
    with pytest.raises(KeyError, match=r"Missing: pooler.dense.weight, pooler.dense.bias"):
        Bert.from_pretrained(tmp_path)


def test_copies_of_tied_weights_are_fine_and_different_ones_are_not(tmp_path):
    model = tiny(BertForMaskedLM)
    model.save_pretrained(tmp_path)
    weights = model.state_dict()
    table, bias = weights["bert.embeddings.word_embeddings.weight"], weights["cls.predictions.bias"]
    copies = {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": bias}
    only = {name: value for name, value in weights.items() if value is not bias}
    for held in ({**weights, **copies}, {**only, **copies}):
        save_weights(tmp_path / "model.safetensors", held)
        loaded = BertForMaskedLM.from_pretrained(tmp_path)
        np.testing.assert_array_equal(loaded(IDS).logits.data, model(IDS).logits.data)
    for name, value in copies.items():
        save_weights(tmp_path / "model.safetensors", {**weights, **copies, name: value + 1})
        with pytest.raises(ValueError, match=rf"{name} differs .* tie_word_embeddings is true"):
            BertForMaskedLM.from_pretrained(tmp_path)


def test_an_untied_heads_bias_may_come_under_either_name(tmp_path):
    model = tiny(BertForMaskedLM, tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    weights = load_weights(tmp_path / "model.safetensors")
    weights["cls.predictions.bias"] = weights["cls.predictions.decoder.bias"]
    for name in ("cls.predictions.bias", "cls.predictions.decoder.bias"):
        save_weights(tmp_path / "model.safetensors", {k: v for k, v in weights.items() if k != name})
        loaded = BertForMaskedLM.from_pretrained(tmp_path)
        np.testing.assert_array_equal(loaded(IDS).logits.data, model(IDS).logits.data)


def test_misspelt_weights_are_named(tmp_path):
    model = tiny(BertForMaskedLM)
    model.save_pretrained(tmp_path)
    more = {"cls.predictions.extra": np.zeros(2, np.float32), "score.weight": np.zeros(2, np.float32)}
    save_weights(tmp_path / "model.safetensors", {**model.state_dict(), **more})
    with pytest.raises(KeyError, match=r"Unexpected: cls.predictions.extra, score.weight"):
        BertForMaskedLM.from_pretrained(tmp_path)


def test_a_folder_that_names_no_architecture_holds_an_encoder(tmp_path):
    tiny(BertForPreTraining).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(models.load(tmp_path)) is Bert


# The config.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_decoder": True}, "is_decoder = True, which BertConfig does not support"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"position_embedding_type": "relative_key"}, "'relative_key' is not supported: positions are 'absolute'"),
        ({"model_type": "roberta"}, "'roberta'"),
        ({"hidden_act": "gelu_fast"}, "no activation is named 'gelu_fast'"),
        ({"num_attention_heads": 5}, r"hidden_size \(24\) must be a multiple of num_attention_heads \(5\)"),
        ({"type_vocab_size": 0}, "type_vocab_size must be at least 1"),
        ({"classifier_dropout": 1.5}, "classifier_dropout is a probability"),
        ({"pad_token_id": 61}, "pad_token_id is a token, 0 to 60, or None; got 61"),
        ({"problem_type": "ranking"}, "problem_type is one of regression"),
        ({"problem_type": "single_label_classification", "num_labels": 1}, "take two, or"),
        ({"num_labels": 0}, "num_labels must be at least 1"),
        ({"num_labels": 3, "id2label": {0: "a", 1: "b"}}, "up to num_labels = 3"),
        ({"id2label": {"1": "a", "2": "b"}}, "id2label names the classes 0, 1, 2"),
    ],
)
def test_a_config_that_we_cannot_honour_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BertConfig.from_dict({**TINY, **changes})
